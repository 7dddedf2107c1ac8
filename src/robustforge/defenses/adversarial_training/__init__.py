"""Adversarial training: Madry et al. (2018), TRADES and MART."""

from robustforge.defenses.adversarial_training.module import AdversarialTraining

__all__ = ["AdversarialTraining"]
