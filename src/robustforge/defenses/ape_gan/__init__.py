"""APE-GAN (Shen et al. 2017, arXiv:1707.05474)."""

from robustforge.defenses.ape_gan.module import APEGAN

__all__ = ["APEGAN"]
