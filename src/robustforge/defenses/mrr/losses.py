"""Losses of the latent defenders of modular robust redundancy (CuRTAIL): class centers on the unit sphere.

``features`` are (B, D) of unit length, ``centers`` (K, D), ``y`` (B,) int64 labels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from robustforge.defenses.choices import one_of

REDUCTIONS = ("mean", "sum")
REGULARIZERS = ("released", "long_text")


def squared_center_distances(features: Tensor, centers: Tensor) -> Tensor:
    """(B, K) squared Euclidean distance of every feature to every center."""
    # differences, not the expanded square, which cancels where features have collapsed onto their center
    return (features[:, None] - centers[None]).square().sum(2)


def nearest_center_distance(features: Tensor, centers: Tensor) -> Tensor:
    """(B,) squared distance to the nearest center of any class; its gradient in the image pushes the image away."""
    return squared_center_distances(features, centers).amin(1)


def center_pull(features: Tensor, centers: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Half the squared distance to the own class's center, over the batch.

    Args:
        features: (B, D).
        centers: (K, D).
        y: (B,) labels.
        reduction: ``mean``, or ``sum`` as in the released code, whose weight then grows with the batch.

    Returns:
        Scalar.

    Raises:
        UserError: another reduction.
    """
    one_of("pull_reduction", reduction, REDUCTIONS)
    distance = (features - centers[y]).square().sum(1)
    return 0.5 * (distance.mean() if reduction == "mean" else distance.sum())


def center_separation(centers: Tensor, y: Tensor) -> Tensor:
    """mean_b [(C_y . C_n) d - d], d = |C_y - C_n|^2, C_n the center nearest to C_y.

    -d drives the two nearest centers apart; the product discourages centers that point the same way.

    Args:
        centers: (K, D), K > 1.
        y: (B,) labels.

    Returns:
        Scalar.
    """
    between = squared_center_distances(centers, centers)
    own = torch.eye(len(centers), dtype=torch.bool, device=centers.device)
    distance, nearest = between.masked_fill(own, float("inf")).min(1)
    alike = (centers * centers[nearest]).sum(1)
    return (alike * distance - distance)[y].mean()


def released_regularizer(
    features: Tensor, centers: Tensor, y: Tensor, pull_reduction: str = "mean"
) -> dict[str, Tensor]:
    """The regularizer of the released code, term by term, unweighted.

    1/2 sum_b |phi_b - C_y|^2 + mean_b [(C_y . C_n) d - d] + 100 sum_c |1 - |C_c|^2|.

    Args:
        features: (B, D).
        centers: (K, D).
        y: (B,) labels.
        pull_reduction: of the first term; ``sum`` is the code's.

    Returns:
        Scalars ``pull``, ``separation`` and ``length``.

    Notes:
        The code sums the first term over the batch and averages the second: at its batch of 100 the pull is some 50
        times the paper's. The default is the mean.
    """
    return {
        "pull": center_pull(features, centers, y, pull_reduction),
        "separation": center_separation(centers, y),
        "length": 100 * (1 - centers.square().sum(1)).abs().sum(),
    }


def long_text_regularizer(features: Tensor, centers: Tensor, y: Tensor) -> dict[str, Tensor]:
    """The regularizer as the method's longer description prints it, a mean over the batch, unweighted.

    |C_y - phi|^2 - sum_{c != y} |C_c - phi|^2 + sum_c (|C_c| - 1)^2.

    Args:
        features: (B, D).
        centers: (K, D).
        y: (B,) labels.

    Returns:
        Scalars ``pull``, ``separation`` and ``length``.
    """
    distances = squared_center_distances(features, centers)
    own = distances.gather(1, y[:, None]).squeeze(1)
    return {
        "pull": own.mean(),
        "separation": -(distances.sum(1) - own).mean(),
        "length": (centers.norm(dim=1) - 1).square().sum(),
    }
