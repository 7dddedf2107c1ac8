"""The one data module: any image data set, resident, split into train, calibration and test."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor

from robustforge.data.augment import Augment
from robustforge.data.integrity import fingerprint
from robustforge.data.labels import check_classes
from robustforge.data.resident import ResidentLoader, Split, hold_out, unit_pixels
from robustforge.data.sources import Arrays, load_arrays
from robustforge.data.values import image_shape, per_channel, whole
from robustforge.ranges import (
    Classes,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    PositiveShare,
    Seed,
    Shape,
    Share,
    Some,
)
from robustforge.types import Batch, UserError, radius

log = logging.getLogger(__name__)

SPLITS = ("train", "calibration", "test")


def _ranks() -> tuple[int, int]:
    """(rank, world size) of this process."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


class ImageData(L.LightningDataModule):
    """Images for training, calibration and test; also usable without a Trainer (``setup()``, then ``batches``).

    Args:
        name: name of the data set; see :func:`robustforge.data.sources.load_arrays` for where it is looked for.
        kind: ``digits``, ``torchvision``, ``coil100``, ``celeba``, ``npz`` or ``imagefolder``.
        shape: (C, H, W).
        num_classes: labels are 0 .. num_classes - 1.
        mean: per channel (or one value for all), pixel units; for the network's first layer, not applied here.
        std: likewise, above 0.
        eps: customary L-infinity budget, pixel units; the default of ``threat.eps``. Not applied here.
        data_dir: folder of the data sets; empty = the environment variable ROBUSTFORGE_DATA, else ``data``.
        download: whether a torchvision set may be downloaded.
        path: archive or folder, in place of the one below ``data_dir``.
        sha256: hash of the .npz archive, or None.
        batch_size: training images a batch and device.
        eval_batch_size: images a batch and device without gradients to the weights.
        augment: applied to training batches, on the device; None = none.
        held_out: training images set apart to calibrate thresholds, at most 10 % of the training set.
        split_seed: decides which images are held out, and which ones the limits keep.
        seed: decides the order of the batches and the augmentation.
        limit_train: for quick runs, the number of training images (and the most calibration images) to keep. With a
            limit, classes without training images are a warning, not an error.
        limit_test: likewise for the test images.

    Attributes:
        train, calibration, test: the splits, after ``setup``.
        fingerprint: sha256 over the data and all that decides the splits, after ``setup``.
        adversarial: None, or (len(train), C, H, W) floats in [0, 1] aligned with ``train``, given as ``Batch.x_adv``.
        erasing: whether training images are erased as ``augment`` says; a stage may switch it off.

    Raises:
        UserError: at construction for values out of range, in ``setup`` for data that is missing or not as promised.
    """

    name: str
    train: Split
    calibration: Split
    test: Split
    fingerprint: str

    def __init__(
        self,
        name: str,
        kind: str,
        shape: Shape,
        num_classes: Classes,
        mean: Some[Share] = (0.5,),
        std: Some[PositiveShare] = (0.5,),
        eps: NonNegativeFloat | str = 8 / 255,
        data_dir: str | Path | None = None,
        download: bool = False,
        path: str | Path | None = None,
        sha256: str | None = None,
        batch_size: PositiveInt = 128,
        eval_batch_size: PositiveInt = 512,
        augment: Augment | None = None,
        held_out: NonNegativeInt = 5000,
        split_seed: Seed = 0,
        seed: Seed = 0,
        limit_train: PositiveInt | None = None,
        limit_test: PositiveInt | None = None,
    ) -> None:
        super().__init__()
        self.name, self.kind, self.eps = name, kind, float(radius(eps))
        self.shape = image_shape(shape)
        self.num_classes = whole("num_classes", num_classes, 2)
        self.mean, self.std = per_channel("mean", mean, self.shape[0]), per_channel("std", std, self.shape[0])
        self.data_dir, self.download, self.path, self.sha256 = data_dir, download, path, sha256
        self.batch_size = whole("batch_size", batch_size, 1)
        self.eval_batch_size = whole("eval_batch_size", eval_batch_size, 1)
        self.augment = augment or Augment()
        self.held_out = whole("held_out", held_out, 0)
        self.split_seed, self.seed = whole("split_seed", split_seed, 0), whole("seed", seed, 0)
        self.limit_train = None if limit_train is None else whole("limit_train", limit_train, 1)
        self.limit_test = None if limit_test is None else whole("limit_test", limit_test, 1)
        self.adversarial: np.ndarray | Tensor | None = None
        self.erasing = True
        self.replays = 1
        self._arrays: Arrays | None = None

    def read(self) -> Arrays:
        """The whole data set; what a subclass with data of its own overrides.

        Raises:
            UserError: data that is missing or not as promised.
        """
        arrays = load_arrays(
            self.name, self.kind, self.data_dir, self.download, self.shape, self.num_classes, self.sha256, self.path
        )
        what = f"'{self.path or self.name}'"
        check_classes(arrays.y_train, arrays.y_test, self.num_classes, what, limited=self.limit_train is not None)
        return arrays

    def prepare_data(self) -> None:
        """Download and cache on one process, so that the others find the files."""
        if "train" not in self.__dict__:
            self._arrays = self.read()

    def setup(self, stage: str | None = None) -> None:
        """Load and split; the second call does nothing. ``stage`` is Lightning's and changes nothing."""
        if "train" in self.__dict__:
            return
        arrays, self._arrays = self._arrays or self.read(), None
        x_train, y_train, x_test, y_test = arrays.x_train, arrays.y_train, arrays.x_test, arrays.y_test
        settings = (self.num_classes, self.held_out, self.split_seed, self.limit_train, self.limit_test)
        # Before the split, which reorders the arrays in place.
        self.fingerprint = fingerprint((x_train, y_train, x_test, y_test), f"robustforge-data-1 {settings}")
        count = min(self.held_out, len(y_train) // 10)
        train, held = hold_out(torch.from_numpy(x_train), torch.from_numpy(y_train), count, self.split_seed)
        self.calibration = held.first(self.limit_train, self.split_seed)
        self.test = Split(torch.from_numpy(x_test), torch.from_numpy(y_test)).first(self.limit_test, self.split_seed)
        self.train = train.first(self.limit_train, self.split_seed)

    @property
    def rank(self) -> int:
        """This process among those that train together."""
        return _ranks()[0]

    @property
    def world_size(self) -> int:
        """How many processes train together."""
        return _ranks()[1]

    def _epoch(self) -> int:
        return self.trainer.current_epoch if self.trainer is not None else 0

    def train_dataloader(self) -> ResidentLoader:
        """Shuffled full batches of the training split, equally many on each rank, with adversarial partners if set."""
        return ResidentLoader(
            self.train,
            self.batch_size,
            shuffle=True,
            seed=self.seed,
            epoch=self._epoch,
            drop_last=True,
            rank=self.rank,
            world_size=self.world_size,
            even=True,
            adversarial=self.adversarial,
            replays=self.replays,
        )

    def _evaluation(self, split: Split, batch_size: int | None = None) -> ResidentLoader:
        return ResidentLoader(split, batch_size or self.eval_batch_size, rank=self.rank, world_size=self.world_size)

    def val_dataloader(self) -> ResidentLoader:
        """The calibration split, in order: validation never sees the test images."""
        return self._evaluation(self.calibration)

    def test_dataloader(self) -> ResidentLoader:
        """The test split, in order, each image once over all ranks."""
        return self._evaluation(self.test)

    def batches(
        self, split_name: str, batch_size: int | None = None, device: torch.device | str = "cpu", shard: bool = True
    ) -> Iterator[Batch]:
        """Batches outside Lightning: in order, without augmentation, each image once over all ranks.

        Args:
            split_name: ``train``, ``calibration`` or ``test``.
            batch_size: images a batch; None = ``eval_batch_size``.
            device: where the batches go.
            shard: share the images out over the ranks; False gives this rank all of them.

        Raises:
            UserError: no such split.
        """
        if split_name not in SPLITS:
            raise UserError(f"There is no split '{split_name}': choose one of {', '.join(SPLITS)}.")
        self.setup()
        split: Split = getattr(self, split_name)
        loader = self._evaluation(split, batch_size)
        for raw in loader if shard else ResidentLoader(split, batch_size or self.eval_batch_size):
            yield Batch(unit_pixels(raw["x"].to(device)), raw["y"].to(device), raw["index"].to(device))

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Turn the loader's dictionary into a :class:`Batch` on its device; augment it while training.

        The draws depend on (seed, epoch, number of the batch, rank) alone, so that a resumed run repeats them.
        """
        if not isinstance(batch, dict):
            return batch
        x, x_adv = unit_pixels(batch["x"]), batch.get("x_adv")
        if self.trainer is not None and self.trainer.training:
            key = [self.seed, self._epoch(), batch["batch"], self.rank]
            seed = int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])
            generator = torch.Generator(x.device).manual_seed(seed)
            augment = self.augment if self.erasing else self.augment.without_erasing()
            if x_adv is None:
                x = augment(x, generator)
            else:
                x, x_adv = augment(torch.cat([x, x_adv], 1), generator).chunk(2, 1)
        return Batch(x, batch["y"], batch["index"], x_adv)
