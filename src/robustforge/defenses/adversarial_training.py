"""Adversarial training: the classifier learns on attacked images made on the fly.

``madry`` (Madry et al. 2018, arXiv:1706.06083), ``trades`` (Zhang et al. 2019, arXiv:1901.08573) and ``mart``
(Wang et al. 2020, ICLR) differ in the loss and, for TRADES, in what the inner attack maximises.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustforge.attacks.base import Attack
from robustforge.attacks.engine import attacking
from robustforge.attacks.geometry import project
from robustforge.attacks.gradient import ascend
from robustforge.attacks.randomness import SampleRandom
from robustforge.attacks.surfaces import end_to_end
from robustforge.defenses.base import Defense, classify
from robustforge.defenses.none import plain_stage
from robustforge.defenses.stages import Factory, FitStage, Stage, Training, build_seeded, describe
from robustforge.losses.robust import mart_loss, trades_kl
from robustforge.types import Batch, DefenseOutput, Threat, UserError

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
    loss: str = "madry"
    clean_weight: float = 0.0
    beta: float = 6.0

    def __post_init__(self) -> None:
        if self.loss not in LOSSES:
            raise UserError(f"The robust loss is '{self.loss}': choose one of {', '.join(LOSSES)}.")
        if not 0 <= self.clean_weight <= 1:
            raise UserError(f"clean_weight is {self.clean_weight}: give a share between 0 and 1.")

    def terms(self, network: nn.Module, batch: Batch, seed: int) -> dict[str, Tensor]:
        """Weighted loss terms of one batch.

        Args:
            network: the classifier, (B, C, H, W) -> (B, K); attacked in eval mode, trained in its own mode.
            batch: clean images and labels.
            seed: of the attack's draws.

        Notes:
            The attack sees frozen batch-norm statistics (eval mode); the training pass then normalises clean and
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
    with attacking(surface, batch.x, batch.y, threat, index=batch.index, precision=precision) as query:
        with torch.no_grad():
            clean = network(batch.x).float()
        noise = SampleRandom(seed, "trades").normal(batch.index, batch.x.shape[1:])
        return ascend(
            query, project(batch.x + 1e-3 * noise, batch.x, threat), query.everyone(), goal=clean, steps=steps,
            step_size=2.5 * threat.eps / steps if step_size is None else step_size,
            objective=trades_kl, early_stop=False,
        )  # fmt: skip


class AdversarialTraining(Defense):
    """A classifier trained on its own adversarial examples.

    Args:
        model: factory of the classifier.
        robust: the robust loss and its attack.
        training: how the robust classifier is optimised.
        undefended_training: how the undefended row is optimised.
        warm_start: start from the undefended classifier's weights instead of fresh ones.
        seed: of initial weights, batches and attacks.
    """

    def __init__(
        self, model: Factory, robust: AdversarialLoss, training: Training, undefended_training: Training,
        warm_start: bool = False, seed: int = 0,
    ) -> None:  # fmt: skip
        super().__init__(seed=seed, training=training)
        self.model_description = describe(model)
        self.robust, self.warm_start = robust, warm_start
        self.undefended_training = undefended_training
        self.undefended = build_seeded(model, seed, "undefended")
        self.classifier = build_seeded(model, seed, "classifier")

    def forward(self, x: Tensor) -> DefenseOutput:
        """(B, C, H, W) -> logits (B, K)."""
        return DefenseOutput(self.classifier(x))

    def classifier_network(self) -> nn.Module:
        """The classifier."""
        return self.classifier

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The robust loss."""
        return self.robust.terms(self.classifier, batch, self.attack_seed())

    def validate(self, batch: Batch) -> dict[str, Tensor]:
        """Clean and robust held-out accuracy."""
        return robust_metrics(self.classifier, batch, self.robust, self.seed)

    def stages(self) -> list[Stage]:
        """The undefended row, then the robust classifier."""
        assert self.training_plan is not None
        plain = plain_stage(self, self.model_description, self.undefended_training)
        settings = {"model": self.model_description, "robust": describe(self.robust), "warm_start": self.warm_start}
        robust = FitStage(
            "classifier", ("classifier",), self.losses, self.training_plan, settings,
            uses=("undefended",) if self.warm_start else (), validate=self.validate,
            prepare=self._copy_weights if self.warm_start else None,
        )  # fmt: skip
        return [plain, robust]

    def systems(self) -> dict[str, dict]:
        """The undefended classifier beside the defense."""
        return {"undefended": classify(self.undefended)}

    def _copy_weights(self) -> None:
        self.classifier.load_state_dict(self.undefended.state_dict())


def robust_metrics(network: nn.Module, batch: Batch, robust: AdversarialLoss, seed: int) -> dict[str, Tensor]:
    """Per-sample clean and robust correctness (B,) of a classifier under its own training attack."""
    surface = end_to_end(lambda x: DefenseOutput(network(x)), network)
    result = robust.attack(surface, batch.x, batch.y, robust.threat, index=batch.index, seed=seed)
    with torch.no_grad():
        clean = network(batch.x).argmax(1) == batch.y
    return {"accuracy": clean.float(), "robust_accuracy": (clean & ~result.success).float()}
