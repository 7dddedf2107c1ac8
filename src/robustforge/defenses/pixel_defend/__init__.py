"""PixelDefend (Song et al. 2018, arXiv:1710.10766)."""

from robustforge.defenses.pixel_defend.module import PixelDefend

__all__ = ["PixelDefend"]
