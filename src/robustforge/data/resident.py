"""Images that stay in memory or in a memory map, cut into batches by index: no workers, no inter-process copies."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robustforge.data.images import check_adversarial
from robustforge.types import UserError


def unit_pixels(images: Tensor) -> Tensor:
    """8-bit or float images as new float32 in [0, 1]: the only place where the library divides by 255."""
    return images.float().div_(255) if images.dtype == torch.uint8 else images.to(torch.float32, copy=True)


@dataclass(frozen=True)
class Split:
    """A part of a data set.

    Attributes:
        images: (N, C, H, W) on the CPU, uint8 or float32 in [0, 1]; may be a view of a memory map.
        labels: (N,) int64.
    """

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def pixels(self, rows: Tensor | slice = slice(None), device: torch.device | str = "cpu") -> Tensor:
        """The images of ``rows`` as new float32 (n, C, H, W) in [0, 1] on ``device``; they travel there as stored."""
        return unit_pixels(self.images[rows].to(device))

    def first(self, count: int | None, seed: int) -> Split:
        """The first ``count`` images of a seeded permutation, or all of them for None or a count that is too large."""
        if count is None or count >= len(self):
            return self
        chosen = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))[:count]
        return Split(self.images[chosen].contiguous(), self.labels[chosen])


def hold_out(images: Tensor, labels: Tensor, count: int, seed: int) -> tuple[Split, Split]:
    """Split off ``count`` images, drawn uniformly.

    The images of the tail move into the holes, **in place**: both parts are then one block, and a data set that is
    larger than the memory (mapped copy-on-write) is never copied.

    Args:
        images: (N, C, H, W) of any type; reordered.
        labels: (N,) int64; reordered.
        count: images to hold out, 0 .. N.
        seed: of the draw.

    Returns:
        The rest (N - count) and the held-out part (count), disjoint.
    """
    total, rest = len(labels), len(labels) - count
    held = torch.randperm(total, generator=torch.Generator().manual_seed(seed))[:count].sort().values
    apart = Split(images[held].contiguous(), labels[held])
    is_held = torch.zeros(total, dtype=torch.bool)
    is_held[held] = True
    holes, movers = held[held < rest], rest + (~is_held[rest:]).nonzero()[:, 0]
    images[holes], labels[holes] = images[movers], labels[movers]
    return Split(images[:rest], labels[:rest]), apart


class ResidentLoader:
    """Batches of a split, by index.

    Yields dictionaries: ``x`` (B, C, H, W) as stored, ``y`` (B,) int64, ``index`` (B,) int64 positions in the split,
    ``batch`` the number of the batch in the epoch, and, where there are adversarial partners, ``x_adv`` (B, C, H, W)
    float32.

    Args:
        split: the images.
        batch_size: images a batch, on this rank.
        shuffle: permute, differently in each epoch.
        seed: with the epoch, decides the permutation, which is the same on all ranks.
        epoch: called when an epoch starts; a resumed run that knows its epoch therefore sees the same permutation.
        drop_last: leave out an incomplete last batch, unless it is the only one.
        rank: this process.
        world_size: number of processes; rank r takes every ``world_size``-th position from r on.
        even: cut the tail so that all ranks have the same number of batches (training: a rank without a batch would
            stop the others). False covers each image exactly once, without padding (evaluation).
        adversarial: (N, C, H, W) floats in [0, 1] aligned with the split: an array, a tensor or a memory map.
        replays: how often each batch is given in a row, under the same number (and so the same augmentation).

    Raises:
        UserError: a batch size below 1, or adversarial images that do not belong to this split or lie outside [0, 1].
    """

    def __init__(
        self,
        split: Split,
        batch_size: int,
        *,
        shuffle: bool = False,
        seed: int = 0,
        epoch: Callable[[], int] = lambda: 0,
        drop_last: bool = False,
        rank: int = 0,
        world_size: int = 1,
        even: bool = False,
        adversarial: np.ndarray | Tensor | None = None,
        replays: int = 1,
    ) -> None:
        if batch_size < 1:
            raise UserError(f"dataset.batch_size is {batch_size}: give 1 or more.")
        if adversarial is not None and tuple(adversarial.shape) != tuple(split.images.shape):
            raise UserError(
                f"The adversarial set has shape {list(adversarial.shape)} where the split has "
                f"{list(split.images.shape)}: craft it again for this data set and this held-out part."
            )
        if adversarial is not None:
            check_adversarial(np.asarray(adversarial), "The adversarial set")
        self.split, self.batch_size, self.shuffle, self.seed, self.epoch = split, batch_size, shuffle, seed, epoch
        self.drop_last, self.rank, self.world_size, self.even = drop_last, rank, world_size, even
        self.adversarial, self.replays = adversarial, replays
        self._done = 0
        self._skip = 0

    def __len__(self) -> int:
        """Batches an epoch on this rank."""
        total = len(self.split)
        images = total // self.world_size if self.even else len(range(self.rank, total, self.world_size))
        full, rest = divmod(images, self.batch_size)
        return self.replays * (full + bool(rest and not (self.drop_last and full)))

    def state_dict(self) -> dict[str, Any]:
        """Batches already given in this epoch; Lightning stores it in checkpoints that fall inside an epoch."""
        return {"done": self._done}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Start the next iteration after the batches that were already given; a finished epoch starts anew."""
        self._skip = int(state["done"]) % max(1, len(self))

    def positions(self) -> Tensor:
        """(n,) int64 positions of this rank in this epoch, in order."""
        total = len(self.split)
        if self.shuffle:
            state = np.random.SeedSequence([self.seed, self.epoch()]).generate_state(1, np.uint64)
            order = torch.randperm(total, generator=torch.Generator().manual_seed(int(state[0])))
        else:
            order = torch.arange(total)
        end = total - total % self.world_size if self.even else total
        return order[self.rank : end : self.world_size]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        positions = self.positions()
        start, self._skip = self._skip, 0
        for done in range(start, len(self)):
            number = done // self.replays
            index = positions[number * self.batch_size : (number + 1) * self.batch_size]
            self._done = done + 1
            yield self._batch(index, number)

    def _batch(self, index: Tensor, number: int) -> dict[str, Any]:
        batch = {
            "x": self.split.images[index].contiguous(),
            "y": self.split.labels[index],
            "index": index,
            "batch": number,
        }
        if self.adversarial is not None:
            partners = (
                self.adversarial[index] if isinstance(self.adversarial, Tensor) else self.adversarial[index.numpy()]
            )
            batch["x_adv"] = torch.as_tensor(
                np.asarray(partners) if not isinstance(partners, Tensor) else partners
            ).float()
        return batch
