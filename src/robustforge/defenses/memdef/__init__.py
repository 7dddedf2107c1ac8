"""Memory Defense (Adhikarla, Luo & Davison, arXiv:2202.02595): a memory-masking auto-encoder before a classifier."""

from robustforge.defenses.memdef.module import MemoryDefense
from robustforge.defenses.memdef.settings import SelectorSettings, StackSettings

__all__ = ["MemoryDefense", "SelectorSettings", "StackSettings"]
