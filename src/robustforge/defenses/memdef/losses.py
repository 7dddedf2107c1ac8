"""The training loss of Memory Defense (arXiv:2202.02595, Eq. 13), term by term."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from robustforge.defenses.memdef.stack import StackOutput


def address_entropy(weights: Tensor) -> Tensor:
    """Shannon entropy of each address, -sum_i w_i log w_i.

    Args:
        weights: (B, N), rows summing to 1; zeros count 0 and have no gradient.

    Returns:
        (B,), nats, between 0 and log N.
    """
    # the derivative of w log w is infinite at 0, so closed rows must not enter the logarithm at all
    inside = torch.where(weights > 0, weights, torch.ones_like(weights))
    return -(weights * inside.log()).sum(1)


def memory_defense_terms(
    output: StackOutput,
    x: Tensor,
    y: Tensor,
    *,
    alpha: float = 2e-4,
    beta: float = 1e-4,
    gamma: float = 1.0,
    num_classes: int = 10,
) -> dict[str, Tensor]:
    """Weighted terms whose sum is the loss.

    Args:
        output: of the stack.
        x: (B, C, H, W) clean images in [0, 1].
        y: (B,) int64 labels.
        alpha: weight of the entropies.
        beta: weight of the non-target term.
        gamma: weight of the cross-entropy.
        num_classes: K > 1.

    Returns:
        Scalars ``classification`` = gamma CE; ``reconstruction`` = 1/B sum |x - rebuilt|^2; with weights ``entropy`` =
        alpha mean H(w); with other ``non_target`` = -beta sigmoid(L_nt / (K - 1)), L_nt = mean squared error of a
        pixel + alpha mean H(w_other).

    Notes:
        The paper's N in 1 / (N - 1) is undefined: we take the number of classes. Its entropies are summed over the
        batch: we take the mean, or alpha would scale with the batch. Its text trains classifier-B jointly, its equation
        has no such term: we add it. Inside the sigmoid the error is a mean over pixels, as a sum (about 100) saturates
        it and the term then has no gradient at all. The entropy inside L_nt is maximized, as printed.
    """
    terms = {
        "classification": gamma * F.cross_entropy(output.logits, y),
        "reconstruction": (x - output.rebuilt).square().flatten(1).sum(1).mean(),
    }
    if output.weights is not None:
        terms["entropy"] = alpha * address_entropy(output.weights).mean()
    if output.other is not None:
        non_target = (x - output.other).square().mean()
        if output.other_weights is not None:
            non_target = non_target + alpha * address_entropy(output.other_weights).mean()
        terms["non_target"] = -beta * torch.sigmoid(non_target / (num_classes - 1))
    return terms
