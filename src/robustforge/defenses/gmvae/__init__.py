"""Gaussian-mixture VAE with constant entropy (Ghosh, Losalka & Black, AAAI 2019): classify, reject, reclassify."""

from robustforge.defenses.gmvae.module import GaussianMixtureVAE
from robustforge.defenses.gmvae.plans import DetectorPlan, LabelPlan, ReclassificationPlan

__all__ = ["DetectorPlan", "GaussianMixtureVAE", "LabelPlan", "ReclassificationPlan"]
