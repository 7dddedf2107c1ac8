"""PuVAE (Hwang et al. 2019, arXiv:1903.00585)."""

from robustforge.defenses.puvae.module import PuVAE

__all__ = ["PuVAE"]
