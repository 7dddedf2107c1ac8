"""Per-sample classification losses, all higher when more adversarial."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def cross_entropy_per_sample(logits: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy of each sample.

    Args:
        logits: (B, K).
        y: (B,) int64 labels.

    Returns:
        (B,), nats, at least 0.
    """
    return F.cross_entropy(logits, y, reduction="none")


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """Margin of Carlini & Wagner (2017, their f6): best wrong logit minus true logit.

    Args:
        logits: (B, K), K > 1.
        y: (B,) int64 labels.

    Returns:
        (B,), positive exactly where the sample is misclassified.
    """
    return _best_wrong(logits, y) - _true(logits, y)


def margin_terms(logits: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The two terms whose sum is :func:`margin`: the best wrong logit (B,), and minus the true one (B,).

    Args:
        logits: (B, K), K > 1.
        y: (B,) int64 labels.
    """
    return _best_wrong(logits, y), -_true(logits, y)


def dlr(logits: Tensor, y: Tensor) -> Tensor:
    """Difference of logits ratio (Croce & Hein 2020, arXiv:2003.01690, Eq. 6), untargeted.

    -(Z_y - max_{i != y} Z_i) / (Z_pi1 - Z_pi3), where pi sorts the logits downwards: blind to shift and scale.

    Args:
        logits: (B, K), K > 2.
        y: (B,) int64 labels.

    Returns:
        (B,), at most 1, positive exactly where the sample is misclassified.

    Raises:
        ValueError: fewer than three classes.
    """
    if logits.shape[1] < 3:
        raise ValueError(f"The difference of logits ratio needs three classes, here are {logits.shape[1]}: use margin.")
    top = logits.topk(3, dim=1).values
    # three equal logits make 0 / 0
    return margin(logits, y) / (top[:, 0] - top[:, 2]).clamp(min=1e-12)


def margin_targeted(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """Logit of one wrong class minus the true one.

    Args:
        logits: (B, K).
        y: (B,) int64 labels.
        target: (B,) int64 wrong classes.

    Returns:
        (B,), positive where ``target`` is preferred to ``y``.
    """
    return _true(logits, target) - _true(logits, y)


def dlr_targeted(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """Targeted difference of logits ratio (Croce & Hein 2020, arXiv:2003.01690, Eq. 7).

    -(Z_y - Z_t) / (Z_pi1 - (Z_pi3 + Z_pi4) / 2), where pi sorts the logits downwards: blind to shift and scale.

    Args:
        logits: (B, K), K > 3.
        y: (B,) int64 labels.
        target: (B,) int64 wrong classes.

    Returns:
        (B,), positive where ``target`` is preferred to ``y``.

    Raises:
        ValueError: fewer than four classes.
    """
    if logits.shape[1] < 4:
        raise ValueError(
            f"The targeted difference of logits ratio needs four classes, here are {logits.shape[1]}: "
            "use margin_targeted."
        )
    top = logits.topk(4, dim=1).values
    # four equal logits make 0 / 0
    return margin_targeted(logits, y, target) / (top[:, 0] - (top[:, 2] + top[:, 3]) / 2).clamp(min=1e-12)


def _true(logits: Tensor, y: Tensor) -> Tensor:
    return logits.gather(1, y[:, None]).squeeze(1)


def _best_wrong(logits: Tensor, y: Tensor) -> Tensor:
    return logits.scatter(1, y[:, None], float("-inf")).amax(1)
