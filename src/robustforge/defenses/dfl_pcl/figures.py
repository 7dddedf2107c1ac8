"""Figures that say how far the classes lie apart in feature space."""

from __future__ import annotations

import torch
from torch import Tensor

from robustforge.defenses.dfl_pcl.losses import angles, distances


def geometry_figures(features: Tensor, points: Tensor, y: Tensor) -> dict[str, Tensor]:
    """Distances of features to centroids, and angles between centroids.

    Args:
        features: (B, d).
        points: (K, d) centroids.
        y: (B,) labels.

    Returns:
        (B,) each: ``own_distance``, ``nearest_other_distance``; ``least_centroid_angle`` and ``mean_centroid_angle``
        in degrees, the same for all images.
    """
    apart, between = distances(features, points), angles(points).rad2deg()
    others = between[~torch.eye(len(points), dtype=torch.bool, device=points.device)]
    return {
        "own_distance": apart.gather(1, y[:, None]).squeeze(1),
        "nearest_other_distance": apart.scatter(1, y[:, None], float("inf")).amin(1),
        "least_centroid_angle": others.min().expand(len(y)),
        "mean_centroid_angle": others.mean().expand(len(y)),
    }
