"""Losses of adversarial training that compare the answers to a clean and an attacked image."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def trades_kl(logits_adv: Tensor, logits_clean: Tensor) -> Tensor:
    """Divergence of TRADES (Zhang et al. 2019, arXiv:1901.08573): KL(p_clean || p_adv).

    Args:
        logits_adv: (B, K) on attacked images.
        logits_clean: (B, K) on clean images; the gradient reaches both.

    Returns:
        (B,), nats, at least 0.

    Notes:
        The direction is that of the authors' code; the paper leaves it to the surrogate loss.
    """
    return F.kl_div(
        F.log_softmax(logits_adv, 1), F.log_softmax(logits_clean, 1), reduction="none", log_target=True
    ).sum(1)


def boosted_cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Boosted cross-entropy of MART (Wang et al. 2020, ICLR): -log p_y - log(1 - max_{k != y} p_k).

    Args:
        logits: (B, K), K > 1.
        y: (B,) int64 labels.

    Returns:
        (B,), nats, at least 0.

    Notes:
        log(1 - p_k) is the log-sum-exp of the other logits over that of all, exact where p_k rounds to 1; the authors'
        code adds 1e-4 inside the logarithm, which stops the gradient there.
    """
    total = logits.logsumexp(1)
    best_wrong = logits.scatter(1, y[:, None], float("-inf")).argmax(1, keepdim=True)
    rest = logits.scatter(1, best_wrong, float("-inf")).logsumexp(1)
    return F.cross_entropy(logits, y, reduction="none") + total - rest


def mart_loss(logits_clean: Tensor, logits_adv: Tensor, y: Tensor, weight: float = 5.0) -> Tensor:
    """MART (Wang et al. 2020, ICLR): boosted cross-entropy and a divergence weighted by misclassification.

    mean_b [ BCE(p_adv, y) + weight * KL(p_clean || p_adv) * (1 - p_clean,y) ].

    Args:
        logits_clean: (B, K).
        logits_adv: (B, K).
        y: (B,) int64 labels.
        weight: lambda (paper: 5).

    Returns:
        Scalar.
    """
    p_true = logits_clean.softmax(1).gather(1, y[:, None]).squeeze(1)
    return (boosted_cross_entropy(logits_adv, y) + weight * trades_kl(logits_adv, logits_clean) * (1 - p_true)).mean()
