"""Losses of training on attacked images, made on the fly, and what is measured of it on held-out images.

``madry`` (Madry et al. 2018, arXiv:1706.06083), ``trades`` (Zhang et al. 2019, arXiv:1901.08573) and ``mart``
(Wang et al. 2020, ICLR) differ in the loss and, for TRADES, in what the inner attack maximizes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustforge.attacks.core.attack import Attack
from robustforge.attacks.core.geometry import project
from robustforge.attacks.core.session import attacking
from robustforge.attacks.core.surface import end_to_end
from robustforge.attacks.pgd import ascend
from robustforge.hints import check_fields
from robustforge.losses.robust import mart_loss, trades_kl
from robustforge.randomness import SampleRandom
from robustforge.ranges import NonNegativeFloat, Share
from robustforge.types import Batch, DefenseOutput, Threat

LOSSES = ("madry", "trades", "mart")


@dataclass(frozen=True)
class AdversarialLoss:
    """Which robust loss, on which attack.

    Attributes:
        attack: makes the training examples (TRADES uses its ``steps`` and ``step_size`` on its own objective).
        threat: training budget.
        loss: ``madry``, ``trades`` or ``mart``.
        clean_weight: share of clean cross-entropy in ``madry``; 0 is Madry's own, 0.5 the common half-and-half.
        beta: weight of the divergence term in ``trades`` (paper: 6) and ``mart`` (paper: 5).

    Raises:
        UserError: unknown loss, or ``clean_weight`` outside [0, 1].
    """

    attack: Attack
    threat: Threat
    loss: Literal["madry", "trades", "mart"] = "madry"
    clean_weight: Share = 0.0
    beta: NonNegativeFloat = 6.0

    def __post_init__(self) -> None:
        check_fields(self)

    def terms(self, network: nn.Module, batch: Batch, seed: int) -> dict[str, Tensor]:
        """Weighted loss terms of one batch.

        Args:
            network: the classifier, (B, C, H, W) -> (B, K); attacked in eval mode, trained in its own mode.
            batch: clean images and labels.
            seed: of the attack's draws.

        Notes:
            The attack sees frozen batch-norm statistics (eval mode); the training pass then normalizes clean and
            adversarial images in one batch when both are used, so that the running statistics are of the mixture.
        """
        if self.loss == "trades":
            x_adv = trades_examples(network, batch, self.attack, self.threat, seed)
        else:
            surface = end_to_end(lambda x: DefenseOutput(network(x)), network)
            x_adv = self.attack(surface, batch.x, batch.y, self.threat, index=batch.index, seed=seed).x_adv
        if self.loss == "madry" and self.clean_weight == 0:
            return {"adversarial": F.cross_entropy(network(x_adv), batch.y)}
        clean, attacked = network(torch.cat([batch.x, x_adv])).chunk(2)
        if self.loss == "madry":
            return {
                "clean": self.clean_weight * F.cross_entropy(clean, batch.y),
                "adversarial": (1 - self.clean_weight) * F.cross_entropy(attacked, batch.y),
            }
        if self.loss == "trades":
            divergence = self.beta * trades_kl(attacked, clean).mean()
            return {"clean": F.cross_entropy(clean, batch.y), "divergence": divergence}
        return {"mart": mart_loss(clean, attacked, batch.y, self.beta)}


def trades_examples(network: nn.Module, batch: Batch, attack: Attack, threat: Threat, seed: int) -> Tensor:
    """TRADES' inner problem: the image in the ball whose prediction diverges most from the clean one (its Eq. 6).

    Starts at the clean image plus 0.001 * N(0, I), as the divergence has no gradient at the clean image itself.
    """
    steps, step_size = getattr(attack, "steps", 10), getattr(attack, "step_size", None)
    surface = end_to_end(lambda x: DefenseOutput(network(x)), network)
    precision = getattr(attack, "precision", "auto")
    with attacking(surface, batch.x, batch.y, threat, index=batch.index, precision=precision) as session:
        with torch.no_grad():
            clean = network(batch.x).float()
        noise = SampleRandom(seed, "trades").normal(batch.index, batch.x.shape[1:])
        return ascend(
            session,
            project(batch.x + 1e-3 * noise, batch.x, threat),
            session.everyone(),
            goal=clean,
            steps=steps,
            step_size=2.5 * threat.eps / steps if step_size is None else step_size,
            objective=trades_kl,
            early_stop=False,
        )


def robust_metrics(network: nn.Module, batch: Batch, robust: AdversarialLoss, seed: int) -> dict[str, Tensor]:
    """Per-sample clean and robust correctness (B,) of a classifier under its own training attack."""
    surface = end_to_end(lambda x: DefenseOutput(network(x)), network)
    result = robust.attack(surface, batch.x, batch.y, robust.threat, index=batch.index, seed=seed)
    with torch.no_grad():
        clean = network(batch.x).argmax(1) == batch.y
    return {"accuracy": clean.float(), "robust_accuracy": (clean & ~result.success).float()}
