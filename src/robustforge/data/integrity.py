"""Files and arrays that can be trusted: atomic writes, hashes, pixel layout and label checks."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from robustforge.files import sha256_of
from robustforge.types import UserError

SAMPLED_PIXELS = 1 << 20
"""Pixels of each array that the fingerprint reads, evenly spaced; the labels are read whole."""


def check_sha256(path: Path, expected: str | None) -> None:
    """Compare a file with the hash that the configuration promises; no hash, no check.

    Raises:
        UserError: the file is another one.
    """
    if expected is None:
        return
    found = sha256_of(path)
    if found != expected.lower():
        raise UserError(
            f"'{path}' has sha256 {found} where dataset.sha256 says {expected}: fetch it again, or correct the hash."
        )


def as_pixels(array: np.ndarray, shape: Sequence[int], what: str) -> np.ndarray:
    """Bring images to uint8 (N, C, H, W); a view where that is possible.

    Args:
        array: (N, H, W), (N, H, W, C) or (N, C, H, W); uint8, or floats in [0, 1], which are rounded to 1/255.
        shape: the (C, H, W) wanted, which also tells the two layouts with a channel apart.
        what: the name of the array in messages.

    Raises:
        UserError: another size, another type, or floats outside [0, 1].
    """
    channels, height, width = shape
    found = tuple(array.shape[1:])
    if found == (height, width) and channels == 1:
        array = array[:, None]
    elif found == (height, width, channels) and found != (channels, height, width):
        array = array.transpose(0, 3, 1, 2)
    elif found != (channels, height, width):
        raise UserError(
            f"{what} holds images of shape {list(found)} where dataset.shape (C, H, W) is {list(shape)}: "
            "set dataset.shape to what the file holds, or resize the images."
        )
    if array.dtype == np.uint8:
        return array
    if not np.issubdtype(array.dtype, np.floating):
        raise UserError(f"{what} is of type {array.dtype}: store pixels as uint8, or as floats in [0, 1].")
    # The negated form also refuses NaN, which every comparison calls false.
    if array.size and not (array.min() >= 0 and array.max() <= 1):
        raise UserError(f"{what} has floats outside [0, 1]: divide by 255, or store uint8.")
    return np.rint(array * 255).astype(np.uint8)


def as_labels(array: np.ndarray, count: int, num_classes: int, what: str) -> np.ndarray:
    """Bring labels to int64 (N,).

    Args:
        array: integers, (N,) or (N, 1).
        count: the number of images they belong to.
        num_classes: labels are 0 .. num_classes - 1.
        what: the name of the array in messages.

    Raises:
        UserError: not integers, not one for an image, or out of range.
    """
    if not np.issubdtype(array.dtype, np.integer):
        raise UserError(f"{what} is of type {array.dtype}: store labels as integers 0 .. {num_classes - 1}.")
    if array.size != count or array.shape[:1] != (count,):
        raise UserError(f"{what} has shape {list(array.shape)} for {count} images: store one label for each image.")
    labels = array.reshape(-1).astype(np.int64)
    if count and not (labels.min() >= 0 and labels.max() < num_classes):
        raise UserError(
            f"{what} has labels from {labels.min()} to {labels.max()} where dataset.num_classes is {num_classes}: "
            f"set dataset.num_classes={int(labels.max()) + 1}, or renumber the labels from 0."
        )
    return labels


def fingerprint(arrays: Sequence[np.ndarray], settings: str) -> str:
    """A sha256 that changes with the data or with how it is split, cheap for a gigabyte.

    Args:
        arrays: images (four dimensions, sampled at evenly spaced pixels) and labels (one dimension, whole).
        settings: whatever else decides the splits, as text.

    Returns:
        64 hexadecimal digits, the same on every machine and for a memory-mapped or a resident array.
    """
    digest = hashlib.sha256(settings.encode())
    for array in arrays:
        digest.update(f"{array.dtype}{array.shape}".encode())
        if array.ndim == 1:
            digest.update(np.ascontiguousarray(array).tobytes())
            continue
        # An odd step drifts over all columns; positions, not a flat view, because a mapped (N, H, W, C) file has none.
        positions = np.arange(0, array.size, max(1, array.size // SAMPLED_PIXELS) | 1)
        digest.update(array[np.unravel_index(positions, array.shape)].tobytes())
    return digest.hexdigest()
