"""Efficient Defenses (Zantedeschi et al. 2017, arXiv:1707.06728): bounded ReLUs and Gaussian data augmentation."""

from __future__ import annotations

from dataclasses import replace

import torch.nn.functional as F
from torch import Tensor, nn

from robustforge.attacks.core.surface import Surface, end_to_end, transfer
from robustforge.defenses.base import Defense, classify
from robustforge.defenses.efficient.augmentation import with_noisy_copies
from robustforge.defenses.stages import Factory, FitStage, Stage, Training, build_seeded
from robustforge.defenses.undefended import plain_stage
from robustforge.nn.bounded_relu import bound_relus, open_bounds
from robustforge.ranges import NonNegativeFloat, NonNegativeInt, PositiveFloat, Seed
from robustforge.types import Batch, DefenseOutput, UserError


class EfficientDefense(Defense):
    """A classifier through whose layers small changes of the image should spread less.

    Args:
        model: factory of the classifier, with ReLUs that are modules.
        training: how it is optimized.
        undefended_training: how the undefended row is optimized.
        limit: upper bound of every ReLU (paper: 1), or None for ordinary ones.
        noise_std: of the noise on training images, pixel units (MNIST: 0.3; CIFAR-10: 0.05).
        copies: of each image with noise, beside itself; 0: no augmentation (paper: 10).
        seed: of initial weights, batches and noise.

    Raises:
        UserError: a value out of range, or a network without ReLUs to be bounded.

    Notes:
        The paper makes its noisy copies once. Here every epoch draws noise of its own, so that one copy a batch shows
        each image as many noises as there are epochs. At inference nothing is drawn: no surface ``eot`` is needed.
    """

    def __init__(
        self,
        model: Factory,
        training: Training,
        undefended_training: Training,
        limit: PositiveFloat | None = 1.0,
        noise_std: NonNegativeFloat = 0.3,
        copies: NonNegativeInt = 1,
        seed: Seed = 0,
    ) -> None:
        super().__init__(seed=seed, training=training)
        if noise_std < 0 or copies < 0:
            raise UserError(
                f"Efficient Defenses has noise_std={noise_std} and copies={copies}: give 0 or more of each."
            )
        self.undefended_training, self.noise_std, self.copies = undefended_training, noise_std, copies
        self.undefended = build_seeded(model, seed, "undefended")
        self.classifier = build_seeded(model, seed, "classifier")
        if limit is not None:
            bound_relus(self.classifier, limit)

    def forward(self, x: Tensor) -> DefenseOutput:
        """(B, C, H, W) in [0, 1] -> logits (B, K)."""
        return DefenseOutput(self.classifier(x))

    def classifier_network(self) -> nn.Module:
        """The classifier with bounded ReLUs."""
        return self.classifier

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy of the images and their noisy copies."""
        x, y = with_noisy_copies(batch.x, batch.y, self.noise_std, self.copies)
        return {"cross_entropy": F.cross_entropy(self.classifier(x), y)}

    def stages(self) -> list[Stage]:
        """The undefended row, then the classifier."""
        assert self.training_settings is not None
        takes = ("model", "limit", "noise_std", "copies", "training")
        settings = self.training_settings
        fit = FitStage("classifier", ("classifier",), self.losses, settings, validate=self.validate, takes=takes)
        return [plain_stage(self), fit]

    def surfaces(self) -> dict[str, Surface]:
        """What an attacker may differentiate.

        ``end_to_end``: the classifier itself; ``transfer``: the undefended one, the paper's black box; ``bpda``: the
        classifier with the slopes of ordinary ReLUs on the way back, where the bounds are.
        """

        def opened(x: Tensor, _: Tensor) -> tuple[Tensor]:
            with open_bounds(self.classifier):
                return (self.classifier(x),)

        whole = end_to_end(self, self)
        bpda = replace(whole, name="bpda", attacker_logits=opened)
        return {"end_to_end": whole, "transfer": transfer(self.undefended, whole), "bpda": bpda}

    def systems(self) -> dict[str, dict[str, Surface]]:
        """The undefended classifier beside the defense."""
        return {"undefended": classify(self.undefended)}
