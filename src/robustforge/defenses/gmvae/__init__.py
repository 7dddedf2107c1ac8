"""Gaussian-mixture VAE with constant entropy (Ghosh, Losalka & Black, AAAI 2019): classify, reject, reclassify."""

from robustforge.defenses.gmvae.module import GaussianMixtureVAE
from robustforge.defenses.gmvae.settings import (
    AdversarialSettings,
    DetectorSettings,
    LabelSettings,
    ReclassificationSettings,
)

__all__ = [
    "AdversarialSettings",
    "DetectorSettings",
    "GaussianMixtureVAE",
    "LabelSettings",
    "ReclassificationSettings",
]
