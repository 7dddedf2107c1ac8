"""Normalization as the first layer of a network, so that everything outside it lives in [0, 1] pixels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from robustforge.types import UserError

KINDS = {1: "gray", 3: "RGB"}


class Normalize(nn.Module):
    """(x - mean) / std, channel by channel.

    Args:
        mean: one value a channel, in [0, 1] pixel units; a single value stands for all of them.
        std: one positive value a channel, likewise.
        channels: of the images to come; None takes the length of ``mean``.

    Raises:
        UserError: lengths that differ, or a standard deviation that is not positive.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float], channels: int | None = None) -> None:
        super().__init__()
        channels = len(mean) if channels is None else channels
        mean, std = (list(values) * channels if len(values) == 1 else list(values) for values in (mean, std))
        if not len(mean) == len(std) == channels:
            raise UserError(
                f"The images have {_channels(channels)} but mean has {len(mean)} values and std {len(std)}: "
                f"give {channels} of each (dataset.mean, dataset.std)."
            )
        if not all(value > 0 for value in std):
            raise UserError(f"The standard deviations are {list(std)}: give positive numbers (dataset.std).")
        self.register_buffer("mean", torch.tensor(list(mean), dtype=torch.float32).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(list(std), dtype=torch.float32).view(-1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 1] -> the same shape, about zero mean and unit variance.

        Raises:
            ValueError: another number of channels; broadcasting would turn gray images into RGB without a word.
        """
        if x.ndim != 4 or x.shape[1] != len(self.mean):
            raise ValueError(
                f"This network takes images of {_channels(len(self.mean))}, (B, {len(self.mean)}, H, W), "
                f"and was given {tuple(x.shape)}: choose the dataset it was built for."
            )
        return (x - self.mean) / self.std


def _channels(count: int) -> str:
    kind = f" ({KINDS[count]})" if count in KINDS else ""
    return f"{count} channel{'' if count == 1 else 's'}{kind}"
