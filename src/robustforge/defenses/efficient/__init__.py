"""Efficient Defenses (Zantedeschi et al. 2017, arXiv:1707.06728)."""

from robustforge.defenses.efficient.module import EfficientDefense

__all__ = ["EfficientDefense"]
