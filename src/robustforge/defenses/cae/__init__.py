"""Convolutional auto-encoder defense (arXiv:2312.03520)."""

from robustforge.defenses.cae.module import ConvAutoEncoder

__all__ = ["ConvAutoEncoder"]
