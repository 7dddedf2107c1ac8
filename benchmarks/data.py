"""Resident batches with batched augmentation against torchvision's DataLoader with the same transforms."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from benchmarks import BenchRow
from robustforge.data.augment import Augment
from robustforge.data.resident import ResidentLoader, Split, unit_pixels

IMAGES, THEIR_IMAGES, BATCH, ERASING, WORKERS = 50_000, 10_000, 128, 0.5, 2


class _PilImages(Dataset[tuple[Tensor, int]]):
    """Images made from an array one at a time, as torchvision's CIFAR10 does."""

    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        self.images, self.labels = images, labels
        self.transform = v2.Compose(
            [
                v2.RandomCrop(32, 4),
                v2.RandomHorizontalFlip(),
                v2.ToImage(),
                v2.ToDtype(torch.float32, scale=True),
                v2.RandomErasing(ERASING),
            ]
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.images[i])), int(self.labels[i])


def _ours(images: Tensor, labels: Tensor) -> Iterable[Tensor]:
    augment = Augment(crop=4, flip=True, erasing=ERASING)
    for batch in ResidentLoader(Split(images, labels), BATCH, shuffle=True):
        yield augment(unit_pixels(batch["x"]), torch.Generator().manual_seed(batch["batch"]))


def _images_per_second(batches: Iterable[Any], count: int) -> float:
    start = time.perf_counter()
    for _ in batches:
        pass
    return count / (time.perf_counter() - start)


def run() -> list[BenchRow]:
    """Images/s of one augmented epoch at the size of CIFAR-10; each side warms up first, best of two epochs."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (IMAGES, 3, 32, 32), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, 10, (IMAGES,), generator=generator)
    channels_last = images[:THEIR_IMAGES].permute(0, 2, 3, 1).contiguous().numpy()
    loader = DataLoader(
        _PilImages(channels_last, labels.numpy()), BATCH, shuffle=True, num_workers=WORKERS, persistent_workers=True
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _images_per_second(loader, THEIR_IMAGES)
        theirs = max(_images_per_second(loader, THEIR_IMAGES) for _ in range(2))
    # Its idle workers would share the cores with our side.
    del loader
    _images_per_second(_ours(images, labels), IMAGES)
    ours = max(_images_per_second(_ours(images, labels), IMAGES) for _ in range(2))
    note = (
        f"crop 4, flip, erasing {ERASING}; 3x32x32, batch {BATCH}, {torch.get_num_threads()} threads; ours {IMAGES:,} "
        f"images, torchvision {THEIR_IMAGES:,} of them, {WORKERS} persistent workers"
    )
    return [BenchRow("augmented epoch, CIFAR-10 size", ours, theirs, "images/s", ours / theirs, 5.0, note=note)]
