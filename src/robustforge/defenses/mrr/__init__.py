"""Modular robust redundancy (CuRTAIL): a victim left alone, and defenders beside it that estimate an input's risk."""

from robustforge.defenses.mrr.module import ModularRobustRedundancy
from robustforge.defenses.mrr.plans import FusionPlan, InputPlan, LatentPlan

__all__ = ["FusionPlan", "InputPlan", "LatentPlan", "ModularRobustRedundancy"]
