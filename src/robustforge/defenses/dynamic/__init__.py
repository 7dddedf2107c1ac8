"""Dynamic adversarial training with FOSC (Wang et al. 2019)."""

from robustforge.defenses.dynamic.module import Convergence, DynamicTraining

__all__ = ["Convergence", "DynamicTraining"]
