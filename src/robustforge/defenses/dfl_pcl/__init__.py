"""Defensive Feature Layer and Polarized Contrastive Loss (Hassanin et al. 2020, arXiv:2012.04750)."""

from robustforge.defenses.dfl_pcl.feature_losses import PolarizedContrastive, PrototypeConformity
from robustforge.defenses.dfl_pcl.module import DflPcl

__all__ = ["DflPcl", "PolarizedContrastive", "PrototypeConformity"]
