"""Adversarial training: the classifier learns on attacked images made on the fly.

``madry`` (Madry et al. 2018, arXiv:1706.06083), ``trades`` (Zhang et al. 2019, arXiv:1901.08573) and ``mart``
(Wang et al. 2020, ICLR) differ in the loss and, for TRADES, in what the inner attack maximizes.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from robustforge.attacks.core.surface import Surface
from robustforge.defenses.adversarial_training.free import FreePerturbation
from robustforge.defenses.base import Defense, classify
from robustforge.defenses.robust_loss import AdversarialLoss, robust_metrics
from robustforge.defenses.stages import Factory, FitStage, Stage, Training, build_seeded
from robustforge.defenses.undefended import plain_stage
from robustforge.ranges import PositiveInt, Seed
from robustforge.types import Batch, DefenseOutput, UserError


class AdversarialTraining(Defense):
    """A classifier trained on its own adversarial examples.

    Args:
        model: factory of the classifier.
        robust: the robust loss and its attack.
        training: how the robust classifier is optimized.
        undefended_training: how the undefended row is optimized.
        warm_start: start from the undefended classifier's weights instead of fresh ones.
        keep_best: keep the epoch of the highest robust accuracy on held-out images: trained on, it falls again (Rice
            et al. 2020, arXiv:2002.11569).
        replays: how often each batch is shown in a row. More than one is *free* adversarial training (Shafahi et al.
            2019, arXiv:1904.12843; paper: 8), whose perturbation takes one step a replay, on the gradient that the
            weights' own backward pass gives: no attack is run. An epoch then makes ``replays`` times the steps: divide
            ``training.epochs`` by it, as the paper does.
        seed: of initial weights, batches and attacks.

    Raises:
        UserError: free training with another loss than Madry's on attacked images alone.
    """

    def __init__(
        self,
        model: Factory,
        robust: AdversarialLoss,
        training: Training,
        undefended_training: Training,
        warm_start: bool = False,
        keep_best: bool = True,
        replays: PositiveInt = 1,
        seed: Seed = 0,
    ) -> None:
        super().__init__(seed=seed, training=training)
        if replays > 1 and not robust.plain:
            raise UserError(
                "Free adversarial training (defense.replays) makes examples of its own: leave defense.robust.loss at "
                "madry, examples at attack, and clean_weight, awp and grad_align at 0."
            )
        self.free = FreePerturbation(robust.threat) if replays > 1 else None
        self.replays = replays
        self.robust, self.warm_start, self.keep_best = robust, warm_start, keep_best
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
        """The robust loss, or that of free training."""
        if self.free is not None:
            return {"adversarial": F.cross_entropy(self.classifier(self.free.attack(batch.x)), batch.y)}
        return self.robust.terms(self.classifier, batch, self.attack_seed())

    def on_train_epoch_start(self) -> None:
        """The free perturbation begins anew."""
        super().on_train_epoch_start()
        if self.free is not None:
            self.free.reset()

    def on_after_backward(self) -> None:
        """The free perturbation takes its step."""
        if self.free is not None:
            self.free.ascend()

    def validate(self, batch: Batch) -> dict[str, Tensor]:
        """Clean and robust held-out accuracy."""
        return robust_metrics(self.classifier, batch, self.robust, self.seed)

    def stages(self) -> list[Stage]:
        """The undefended row, then the robust classifier."""
        assert self.training_settings is not None
        plain = plain_stage(self)
        robust = FitStage(
            "classifier",
            ("classifier",),
            self.losses,
            self.training_settings,
            uses=("undefended",) if self.warm_start else (),
            validate=self.validate,
            prepare=self._copy_weights if self.warm_start else None,
            best=self.robust.best if self.keep_best else None,
            takes=("model", "robust", "warm_start", "keep_best", "training", "replays"),
            replays=self.replays,
        )
        return [plain, robust]

    def systems(self) -> dict[str, dict[str, Surface]]:
        """The undefended classifier beside the defense."""
        return {"undefended": classify(self.undefended)}

    def _copy_weights(self) -> None:
        self.classifier.load_state_dict(self.undefended.state_dict())
