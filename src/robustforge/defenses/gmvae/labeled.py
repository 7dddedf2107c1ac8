"""The labeled part of a training split, for semi-supervised training."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robustforge.data.resident import unit_pixels
from robustforge.randomness import SampleRandom
from robustforge.types import UserError


def choose_labeled(labels: Tensor, per_class: int, num_classes: int, seed: int) -> Tensor:
    """Which images keep their labels.

    Args:
        labels: (N,) of the training split.
        per_class: n images of each class.
        num_classes: K.
        seed: of the choice.

    Returns:
        (K n,) int64 positions in the split, sorted.

    Raises:
        UserError: a class with fewer images.
    """
    counts = torch.bincount(labels, minlength=num_classes)
    if int(counts.min()) < per_class:
        raise UserError(
            f"Class {int(counts.argmin())} has {int(counts.min())} training images and defense.labels.per_class asks "
            f"for {per_class}: ask for fewer."
        )
    draws = SampleRandom(seed, "gmvae/labeled").uniform(torch.arange(len(labels)), (1,)).flatten()
    chosen = [draws.masked_fill(labels != number, 2.0).argsort()[:per_class] for number in range(num_classes)]
    return torch.cat(chosen).sort().values


@dataclass(frozen=True)
class LabeledPool:
    """The labeled images, resident.

    Attributes:
        images: (n, C, H, W) as the split stores them.
        labels: (n,) int64.
        seed: of the draws.
    """

    images: Tensor
    labels: Tensor
    seed: int

    def draw(self, index: Tensor, epoch: int) -> tuple[Tensor, Tensor]:
        """One labeled image for each unlabeled one.

        Args:
            index: (B,) sample numbers of the unlabeled images, which address the draw.
            epoch: another draw each epoch.

        Returns:
            ((B, C, H, W) float32 in [0, 1], (B,) labels), on ``index``'s device.
        """
        draws = SampleRandom(self.seed, "gmvae/pool", epoch).uniform(index.cpu(), (1,)).flatten()
        rows = (draws * len(self.labels)).long()
        return unit_pixels(self.images[rows].to(index.device)), self.labels[rows].to(index.device)
