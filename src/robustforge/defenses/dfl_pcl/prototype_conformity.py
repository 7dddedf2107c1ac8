"""Prototype Conformity Loss (Mustafa et al. 2019, arXiv:1904.00887; released code), sample by sample."""

from __future__ import annotations

from torch import Tensor

from robustforge.defenses.dfl_pcl.losses import distances, mean_over_others


def prototype_conformity_terms(
    features: Tensor, attracting: Tensor, repelling: Tensor, y: Tensor, largest: float = 1e12
) -> dict[str, Tensor]:
    """Squared distances to the own prototype and, negative, to the other classes' repelling ones; unweighted.

    Args:
        features: (B, d).
        attracting: (K, d) prototypes that features are pulled to.
        repelling: (K, d) a second set that features of other classes are pushed from.
        y: (B,) int64 labels.
        largest: squared distances are clamped to at most this (released code), beyond which nothing is pushed.

    Returns:
        ``proximity`` and ``contrast``, (B,) float32 each; both are minimized.

    Notes:
        The released network applies both terms to the pooled features and to a linear layer on top of them, which is
        a linear map of the former and which our head lacks: we apply them to the pooled features.
    """
    own = distances(features, attracting).gather(1, y[:, None]).squeeze(1).square().clamp(max=largest)
    others = distances(features, repelling).square().clamp(max=largest)
    return {"proximity": own, "contrast": -mean_over_others(others, y)}
