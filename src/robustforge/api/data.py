"""Data of an evaluation as callers have it: tensors, loaders, data sets, names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from robustforge.api.inputs import as_images, as_labels
from robustforge.config import named
from robustforge.data.datamodule import ImageData
from robustforge.data.memory import MemoryData
from robustforge.types import UserError


def as_data(data: Any, calibration: Any, batch_size: int = 512) -> ImageData:
    """Data of an evaluation.

    Args:
        data: (x, y); a DataLoader or Dataset of such pairs; a data module; or the name of a file in conf/dataset.
        calibration: held-out clean images in one of the first two forms, or None.
        batch_size: images under attack at a time.

    Raises:
        UserError: it is none of these, or holds no images, or something else.
    """
    if isinstance(data, str):
        data = named.dataset(data)
    if isinstance(data, ImageData):
        if calibration is not None:
            raise UserError(
                "A data set of this package holds out images for calibration itself: leave calibration out."
            )
        data.setup()
        return data
    held_out = None if calibration is None else _pair(calibration)
    return MemoryData(_pair(data), held_out, eval_batch_size=batch_size)


def _pair(data: Any) -> tuple[Tensor, Tensor]:
    """(images on the CPU, labels on the CPU)."""
    if isinstance(data, tuple | list) and len(data) == 2 and all(hasattr(part, "__len__") for part in data):
        images = as_images(data[0]).cpu()
        return images, as_labels(data[1], len(images)).cpu()
    if not isinstance(data, DataLoader):
        indexed = hasattr(data, "__getitem__") and hasattr(data, "__len__")
        if not indexed or isinstance(data, tuple | list | dict) or hasattr(data, "shape"):
            raise UserError(
                "Data must be (x, y), a DataLoader, a Dataset or a data set's name, and this is a "
                f"{type(data).__name__}."
            )
        data = DataLoader(data, batch_size=256)
    batches = [_batch(batch) for batch in _batches(data)]
    if not batches:
        raise UserError("The data loader gives no batch: there are no images to evaluate on.")
    return torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])


def _batches(loader: DataLoader[Any]) -> list[Any]:
    try:
        return list(loader)
    except TypeError as error:  # PIL images
        raise UserError(f"The data set's items cannot be batched ({error}): give it transform=ToTensor().") from error


def _batch(batch: Any) -> tuple[Tensor, Tensor]:
    if not isinstance(batch, Sequence) or len(batch) < 2:
        raise UserError(f"A batch must be (x, y), and this is a {type(batch).__name__}: give (x, y) as two tensors.")
    images = as_images(batch[0]).cpu()
    return images, as_labels(batch[1], len(images)).cpu()
