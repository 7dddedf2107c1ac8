"""Dynamic adversarial training (Wang et al. 2019, ICML): examples that converge better as training goes on."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from robustforge.defenses.adversarial_training import AdversarialTraining
from robustforge.defenses.base import classify
from robustforge.defenses.dynamic.fosc_pgd import FoscPGD
from robustforge.defenses.robust_loss import AdversarialLoss
from robustforge.defenses.stages import Factory, FitStage, Stage, Training, check_average
from robustforge.hints import check_fields
from robustforge.losses.classification import cross_entropy_per_sample
from robustforge.ranges import NonNegativeFloat, OpenShare, PositiveShare, Seed
from robustforge.types import Batch, UserError


@dataclass(frozen=True)
class Convergence:
    """How the bound on FOSC falls.

    Attributes:
        largest: bound in the first epoch, c_max, units of the loss (paper: 0.5).
        until: share of the epochs after which it is 0 (paper: 100 of 120 epochs).

    Raises:
        UserError: a negative bound, or a share that is not above 0 and at most 1.
    """

    largest: NonNegativeFloat = 0.5
    until: PositiveShare = 100 / 120

    def __post_init__(self) -> None:
        check_fields(self)

    def bound(self, epoch: int, epochs: int) -> float:
        """c_t = max(0, c_max (1 - t / T')) in epoch t of ``epochs``."""
        return max(0.0, self.largest * (1 - epoch / (self.until * epochs)))


class DynamicTraining(AdversarialTraining):
    """Adversarial training whose attack stops each image at a bound on FOSC that falls to 0.

    Args:
        model: factory of the classifier.
        robust: budget and attack, a :class:`FoscPGD`; with its own criterion (0: all steps) it measures held-out robust
            accuracy, and training moves that criterion.
        convergence: how the bound falls.
        training: how the robust classifier is optimized.
        undefended_training: how the undefended row is optimized.
        weighted: weigh each image's loss by itself, over the batch's mean loss, from the second epoch on (released
            code; the paper does not say so).
        keep_best: keep the epoch of the highest robust accuracy on held-out images.
        average: decay of a running average of the weights, or None.
        seed: of initial weights, batches and attacks.

    Raises:
        UserError: another attack or another loss, which have no bound to move.

    Notes:
        FOSC is measured from the clean image, as in the paper; the released code measures from the random start, and
        its stopping rule takes images of 3 x 32 x 32 only. Random starts are clipped to [0, 1], which the code omits.
    """

    def __init__(
        self,
        model: Factory,
        robust: AdversarialLoss,
        convergence: Convergence,
        training: Training,
        undefended_training: Training,
        weighted: bool = False,
        keep_best: bool = True,
        average: OpenShare | None = None,
        seed: Seed = 0,
    ) -> None:
        super().__init__(model, robust, training, undefended_training, keep_best=keep_best, seed=seed)
        if not isinstance(robust.attack, FoscPGD) or not robust.plain:
            raise UserError(
                "Dynamic training moves the criterion of one attack: leave defense.robust.attack to "
                "robustforge.defenses.dynamic.fosc_pgd.FoscPGD, loss to madry, examples to attack, and "
                "clean_weight, awp and grad_align to 0."
            )
        check_average(average)
        self.attack, self.convergence, self.weighted = robust.attack, convergence, weighted
        self.average = average

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy on examples that are as converged as this epoch asks for."""
        assert self.training_settings is not None
        bound = self.convergence.bound(self.current_epoch, self.training_settings.epochs)
        attack = replace(self.attack, criterion=bound)
        surface = classify(self.classifier)["end_to_end"]
        result = attack(surface, batch.x, batch.y, self.robust.threat, index=batch.index, seed=self.attack_seed())
        logits = self.classifier(result.x_adv).float()
        entropy = cross_entropy_per_sample(logits, batch.y)
        accuracy = (logits.argmax(1) == batch.y).float().mean()
        passes = result.backwards.float().mean()
        self.note(adversarial_accuracy=accuracy, bound=torch.tensor(bound, device=logits.device), passes=passes)
        if self.weighted and self.current_epoch > 0:
            weights = entropy.detach()
            entropy = entropy * weights / weights.mean().clamp_min(1e-12)
        return {"adversarial": entropy.mean()}

    def stages(self) -> list[Stage]:
        """The undefended row, then the robust classifier."""
        plain, robust = super().stages()
        assert isinstance(robust, FitStage)
        takes = ("model", "robust", "convergence", "training", "weighted", "keep_best", "average")
        return [plain, replace(robust, takes=takes, average=self.average)]
