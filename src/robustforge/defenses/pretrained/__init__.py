"""A network that was trained elsewhere."""

from robustforge.defenses.pretrained.module import Pretrained

__all__ = ["Pretrained"]
