"""MagNet (Meng & Chen 2017, arXiv:1705.09064)."""

from robustforge.defenses.magnet.module import MagNet

__all__ = ["MagNet"]
