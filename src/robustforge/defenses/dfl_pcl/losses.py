"""Polarized Contrastive Loss (Hassanin et al. 2020, arXiv:2012.04750, Eqs. 3 to 5), term by term and sample by sample.

Not to be confused with Mustafa's Prototype Conformity Loss, which is in the module of that name.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

MODES = ("signed_normalized", "signed_raw", "paper_literal")
COSINE_LIMIT = 1 - 1e-6  # the derivative of arccos is infinite at -1 and 1


def distances(features: Tensor, centroids: Tensor) -> Tensor:
    """Euclidean distance of every feature to every centroid.

    Args:
        features: (B, d).
        centroids: (K, d).

    Returns:
        (B, K) float32; the gradient is 0 where a feature coincides with a centroid.
    """
    # by differences: |f|^2 + |c|^2 - 2 f.c cancels just where features reach their centroid
    return torch.cdist(features.float(), centroids.float(), compute_mode="donot_use_mm_for_euclid_dist")


def angles(centroids: Tensor, normalized: bool = True) -> Tensor:
    """Inverse cosines of the centroids' inner products.

    Args:
        centroids: (K, d).
        normalized: divide by their lengths first, which makes them angles; False is Eq. 4 as printed.

    Returns:
        (K, K) radians in (0, pi); products are clamped to 1 - 1e-6 on either side, where the gradient is 0.
    """
    points = F.normalize(centroids.float(), dim=1) if normalized else centroids.float()
    with torch.autocast(points.device.type, enabled=False):  # bf16 products would blur angles by several degrees
        return (points @ points.T).clamp(-COSINE_LIMIT, COSINE_LIMIT).arccos()


def mean_over_others(values: Tensor, y: Tensor) -> Tensor:
    """Mean over the classes j != y.

    Args:
        values: (B, K).
        y: (B,) int64 labels.

    Returns:
        (B,).
    """
    own = values.gather(1, y[:, None]).squeeze(1)
    return (values.sum(1) - own) / (values.shape[1] - 1)


def polarized_contrastive_terms(
    features: Tensor, centroids: Tensor, y: Tensor, mode: str = "signed_normalized", margin: float = 10.0
) -> dict[str, Tensor]:
    """The three terms of each sample, signed so that all are minimized, unweighted.

    Args:
        features: (B, d), f.
        centroids: (K, d), c; K > 1.
        y: (B,) int64 labels.
        mode: ``signed_normalized``: features and centroids on the unit sphere, intra |f - c_y|, inter the mean over
            j != y of -|f - c_j|, angle that of -arccos(c_y . c_j). ``signed_raw``: lengths as they are, inter a hinge
            max(0, margin - |f - c_j|), angle of the normalized centroids. ``paper_literal``: Eqs. 3 to 5 as printed,
            +|f - c_j| and +arccos(c_y . c_j) without normalization.
        margin: of the hinge in ``signed_raw``.

    Returns:
        ``intra``, ``inter``, ``angle``: (B,) float32 each.

    Raises:
        ValueError: unknown mode.

    Notes:
        Eq. 5 adds an L_inter that its text wants maximized: as printed, the loss pulls every feature to all centroids
        and the centroids to each other, which ``paper_literal`` shows. The signed modes subtract. Eq. 4's fraction is
        taken to average both parts over the K - 1 other classes. Unbounded distances cannot be maximized: hence the
        unit sphere, or a hinge. arccos of un-normalized products is undefined outside [-1, 1]: they are clamped.

        The signed, normalized sum of a feature on its centroid is -3.1728 for ten classes at the corners of a simplex,
        all pairs alike. That is a stationary point and not the least value: arccos is convex beyond a right angle, and
        five orthogonal axes with opposite classes at their ends reach -3.2246. The loss alone does not make the margins
        of all pairs equal: look at the least angle between centroids, which is logged.
    """
    if mode not in MODES:
        raise ValueError(f"The mode of the Polarized Contrastive Loss is '{mode}': choose one of {', '.join(MODES)}.")
    if mode == "signed_normalized":
        features, centroids = F.normalize(features.float(), dim=1), F.normalize(centroids.float(), dim=1)
    apart = distances(features, centroids)
    intra = apart.gather(1, y[:, None]).squeeze(1)
    angle = mean_over_others(angles(centroids, normalized=mode != "paper_literal")[y], y)
    if mode == "paper_literal":
        return {"intra": intra, "inter": mean_over_others(apart, y), "angle": angle}
    inter = mean_over_others((margin - apart).relu() if mode == "signed_raw" else -apart, y)
    return {"intra": intra, "inter": inter, "angle": -angle}
