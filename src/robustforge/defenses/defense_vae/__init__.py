"""Defense-VAE (Li & Ji 2019, arXiv:1812.06570)."""

from robustforge.defenses.defense_vae.module import DefenseVAE

__all__ = ["DefenseVAE"]
