"""Files and arrays that can be trusted: hashes, pixel layout, one label for each image."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from robustforge.data.images import check_images
from robustforge.data.labels import check_labels
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
    """Bring images to (N, C, H, W), uint8 or float32; a view where that is possible.

    Args:
        array: (N, H, W), (N, H, W, C) or (N, C, H, W), of what :func:`robustforge.data.images.check_images` takes.
        shape: the (C, H, W) wanted, which also tells the two layouts with a channel apart.
        what: the name of the array in messages.

    Raises:
        UserError: another size, or pixels that are refused.
    """
    array = check_images(array, what)
    channels, height, width = shape
    found = tuple(array.shape[1:])
    if found == (channels, height, width):
        return array
    if found == (height, width) and channels == 1:
        return array[:, None]
    if found == (height, width, channels):
        return array.transpose(0, 3, 1, 2)
    raise UserError(
        f"{what} holds images of shape {list(found)} where dataset.shape (C, H, W) is {list(shape)}: "
        f"{_reshaping(found, (channels, height, width))}."
    )


def _reshaping(found: tuple[int, ...], shape: tuple[int, ...]) -> str:
    if len(found) == 1:
        return "store them as (N, C, H, W), with x.reshape(len(x), C, H, W)"
    if len(found) not in (2, 3):
        return "store them as (N, C, H, W)"
    last = len(found) == 3 and found[2] in (1, 3, 4) and found[0] not in (1, 3, 4)
    right = (1, *found) if len(found) == 2 else (found[2], *found[:2]) if last else found
    advice = f"set dataset.shape={list(right)}".replace(", ", ",")
    if right[1:] != shape[1:]:
        return f"{advice}, or resize the images"
    change = {(3, 1): "make the images gray", (1, 3): "repeat the gray channel"}.get((right[0], shape[0]))
    return f"{advice}, or {change}" if change else advice


def as_labels(array: np.ndarray, count: int, num_classes: int, what: str) -> np.ndarray:
    """Bring labels to int64 (N,).

    Args:
        array: what :func:`robustforge.data.labels.check_labels` takes.
        count: the number of images they belong to.
        num_classes: labels are 0 .. num_classes - 1.
        what: the name of the array in messages.

    Raises:
        UserError: no labels, not one for an image, or out of range.
    """
    labels = check_labels(array, num_classes, what, "dataset.num_classes")
    if len(labels) != count:
        raise UserError(f"{what} has shape {list(array.shape)} for {count} images: store one label for each image.")
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
