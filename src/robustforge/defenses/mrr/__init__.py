"""Modular robust redundancy (CuRTAIL): a victim left alone, and defenders beside it that estimate an input's risk."""

from robustforge.defenses.mrr.module import ModularRobustRedundancy
from robustforge.defenses.mrr.settings import FusionSettings, InputSettings, LatentSettings

__all__ = ["FusionSettings", "InputSettings", "LatentSettings", "ModularRobustRedundancy"]
