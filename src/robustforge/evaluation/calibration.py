"""Thresholds on risk, fitted on held-out clean training images and frozen before anything is attacked."""

from __future__ import annotations

from torch import Tensor


def risk_threshold(risk: Tensor, false_positive_rate: float) -> float:
    """The smallest threshold that rejects at most the stated share of the calibration images.

    Args:
        risk: (N,) risks of held-out clean images; an image is rejected when its risk is above the threshold.
        false_positive_rate: in [0, 1).

    Returns:
        An observed risk value, so that on the calibration data the share above it is at most the rate.

    Raises:
        ValueError: no image to calibrate on.
    """
    if not len(risk):
        raise ValueError("A threshold needs held-out images: raise dataset.held_out.")
    ordered = risk.sort().values
    allowed = int(false_positive_rate * len(ordered) + 1e-9)  # images that may lie above
    return float(ordered[len(ordered) - 1 - allowed])
