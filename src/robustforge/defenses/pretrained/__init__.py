"""A network that was trained elsewhere."""

from robustforge.defenses.pretrained.module import Pretrained
from robustforge.defenses.pretrained.own import own_network

__all__ = ["Pretrained", "own_network"]
