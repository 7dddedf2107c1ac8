"""ComDefend (Jia et al. 2019, arXiv:1811.12673)."""

from robustforge.defenses.comdefend.module import ComDefend

__all__ = ["ComDefend"]
