"""Defense-GAN (Samangouei et al. 2018, arXiv:1805.06605)."""

from robustforge.defenses.defense_gan.module import DefenseGAN

__all__ = ["DefenseGAN"]
