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
from robustforge.attacks.fgsm import FGSM
from robustforge.attacks.pgd import ascend
from robustforge.defenses.base import classify
from robustforge.defenses.regularizers import Network, gradient_misalignment, worst_weights
from robustforge.defenses.single_step import SINGLE_STEPS, stands_under_pgd, takes_one_step
from robustforge.hints import check_fields
from robustforge.losses.robust import mart_loss, trades_kl
from robustforge.randomness import SampleRandom
from robustforge.ranges import NonNegativeFloat, Share
from robustforge.types import Batch, Threat, UserError

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
        examples: what is trained on: images of ``attack``; or of a single step, ``fast`` or ``n_fgsm``, whatever
            ``attack`` is, see :data:`robustforge.defenses.single_step.SINGLE_STEPS`.
        grad_align: weight of :func:`robustforge.defenses.regularizers.gradient_misalignment`, which keeps training on a
            single step from overfitting it (paper: 0.2 at 8/255); it costs about two passes more. 0: none.
        awp: gamma of :func:`robustforge.defenses.regularizers.worst_weights` (paper: 0.01), which costs about one pass
            more. 0: none.

    Raises:
        UserError: unknown loss or examples, ``clean_weight`` outside [0, 1], or single steps with the TRADES loss,
            whose attack is its own.
    """

    attack: Attack
    threat: Threat
    loss: Literal["madry", "trades", "mart"] = "madry"
    clean_weight: Share = 0.0
    beta: NonNegativeFloat = 6.0
    examples: Literal["attack", "fast", "n_fgsm"] = "attack"
    grad_align: NonNegativeFloat = 0.0
    awp: NonNegativeFloat = 0.0

    def __post_init__(self) -> None:
        check_fields(self)
        if self.examples != "attack" and self.loss == "trades":
            raise UserError(
                f"examples={self.examples} has no place in the TRADES loss, which makes examples of its own: give "
                "loss=madry or mart, or examples=attack with attack.steps=1."
            )
        if self.examples == "n_fgsm" and self.threat.norm != "linf":
            raise UserError("examples=n_fgsm is made for L-infinity: give threat.norm=linf, or examples=fast.")

    @property
    def plain(self) -> bool:
        """Whether it is Madry's loss on the attack's images alone, with nothing added."""
        added = (self.clean_weight, self.grad_align, self.awp)
        return (self.loss, self.examples, *added) == ("madry", "attack", 0, 0, 0)

    @property
    def single_step(self) -> bool:
        """Whether training sees one gradient step an image, which it may overfit."""
        return self.examples != "attack" or takes_one_step(self.attack)

    @property
    def best(self) -> str:
        """The held-out metric by which an epoch is chosen: of PGD-10 where training may overfit a single step."""
        return "pgd_accuracy" if self.single_step else "robust_accuracy"

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
        x_adv = self.attacked(network, batch, seed)
        answer: Network = network
        if self.awp:
            answer = worst_weights(
                network, lambda other: torch.stack([*self._terms(other, batch, x_adv).values()]).sum(), self.awp
            )
        terms = self._terms(answer, batch, x_adv)
        if self.grad_align:
            terms["grad_align"] = self.grad_align * gradient_misalignment(network, batch, self.threat, seed)
        return terms

    def attacked(self, network: nn.Module, batch: Batch, seed: int) -> Tensor:
        """Training examples (B, C, H, W) of a batch; arguments as in :meth:`terms`."""
        if self.loss == "trades":
            return trades_examples(network, batch, self.attack, self.threat, seed)
        surface = classify(network)["end_to_end"]
        if self.examples != "attack":
            return SINGLE_STEPS[self.examples].examples(surface, batch, self.threat, seed)
        return self.attack.examples(surface, batch.x, batch.y, self.threat, index=batch.index, seed=seed)

    def _terms(self, answer: Network, batch: Batch, x_adv: Tensor) -> dict[str, Tensor]:
        if self.loss == "madry" and self.clean_weight == 0:
            return {"adversarial": F.cross_entropy(answer(x_adv), batch.y)}
        clean, attacked = answer(torch.cat([batch.x, x_adv])).chunk(2)
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
    surface = classify(network)["end_to_end"]
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
    """What is measured on held-out images after an epoch of training on ``robust``.

    Returns:
        ``accuracy`` and ``robust_accuracy`` (B,), clean and under the training attack (FGSM for ``fast`` and
        ``n_fgsm``), each 0 or 1; and where training makes one step, ``pgd_accuracy`` (n,) of the first images: the
        distance between the two tells whether it has overfitted that step.
    """
    surface = classify(network)["end_to_end"]
    attack = robust.attack if robust.examples == "attack" else FGSM()
    result = attack(surface, batch.x, batch.y, robust.threat, index=batch.index, seed=seed)
    with torch.no_grad():
        clean = network(batch.x).argmax(1) == batch.y
    metrics = {"accuracy": clean.float(), "robust_accuracy": (clean & ~result.success).float()}
    if robust.single_step:
        metrics["pgd_accuracy"] = stands_under_pgd(surface, batch, robust.threat, seed)
    return metrics
