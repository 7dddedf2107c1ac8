"""Images where they enter: what is sure is converted and said, what is doubtful is refused with advice.

NumPy alone: the data sets on disk and arrays given in Python pass the same checks.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

import numpy as np

from robustforge.types import UserError

log = logging.getLogger(__name__)

EXACT = 1e-6
"""Floats this close to multiples of 1/255 are 8-bit pixels; an adversarial perturbation is not this small."""

DARK = 31
"""Images whose brightest pixel is at most this (of 255) were probably saved on another scale."""

_CHUNK = 1 << 24  # pixels looked at together: a mapped array of any size passes through 128 MiB of memory
_ADVICE = {
    "O": "holds Python objects (images of different sizes, or missing ones): bring all images to one size and store "
    "np.stack(images)",
    "b": "is of type bool: store x.astype(np.uint8) * 255",
    "c": "holds complex numbers: store their real part or their magnitude, scaled to [0, 1]",
}


def check_images(x: np.ndarray, what: str = "x") -> np.ndarray:
    """Check pixels and bring them to one of the two types that the library keeps.

    Args:
        x: (N, ...) images in any layout: uint8, floats in [0, 1], or other integers within 0 .. 255.
        what: the name of the array in messages.

    Returns:
        Images of the same shape: uint8, also for floats that are multiples of 1/255 (within :data:`EXACT`: nothing is
        lost, and a log line says so), else float32. ``x`` itself where nothing has to be converted.

    Raises:
        UserError: no images, another type, NaN or infinite pixels, another range, or nothing but (almost) black.

    Example:
        >>> check_images(np.array([[[0.0, 0.5], [0.25, 1.0]]])).dtype
        dtype('float32')
    """
    kind = x.dtype.kind
    if kind not in "uif":
        raise UserError(
            f"{what} {_ADVICE.get(kind, f'is of type {x.dtype}: store pixels as uint8, or as floats in [0, 1]')}."
        )
    if not x.size:
        raise UserError(f"{what} has shape {list(x.shape)}, which is no image at all: put at least one image there.")
    if kind == "f":
        return _floats(x, what)
    return _eight_bits(x, what) if x.dtype == np.uint8 else _eight_bits(_integers(x, what), what)


def unit_range(x: np.ndarray, what: str) -> tuple[float, float]:
    """The smallest and the largest value of floats that must be numbers.

    Raises:
        UserError: one of them is NaN or infinite; the message names the first such image.
    """
    low, high, start = np.inf, -np.inf, 0
    for part in _chunks(x):
        found = float(part.min()), float(part.max())
        if not np.isfinite(found).all():
            rows = ~np.isfinite(part).reshape(len(part), -1).all(1)
            raise UserError(
                f"{what} has NaN or infinite pixels (first in image {start + int(rows.argmax())}): "
                "mend or remove these images."
            )
        low, high, start = min(low, found[0]), max(high, found[1]), start + len(part)
    return low, high


def check_adversarial(x: np.ndarray, what: str) -> None:
    """Check attacked images, which this library wrote as floats: any other content means that the file is not theirs.

    Args:
        x: (N, ...) images.
        what: whose images they are, in messages.

    Raises:
        UserError: another type than floats, NaN or infinite pixels, or pixels outside [0, 1].
    """
    if x.dtype.kind != "f":
        raise UserError(f"{what} holds pixels of type {x.dtype} where floats in [0, 1] are wanted: make it again.")
    low, high = unit_range(x, what)
    if x.size and (low < 0 or high > 1):
        raise UserError(f"{what} has pixels from {low:.4g} to {high:.4g}, outside [0, 1]: make it again.")


def _chunks(x: np.ndarray) -> Iterator[np.ndarray]:
    step = max(1, _CHUNK * len(x) // max(1, x.size))
    return (x[start : start + step] for start in range(0, len(x), step))


def _floats(x: np.ndarray, what: str) -> np.ndarray:
    low, high = unit_range(x, what)
    if low < 0 or high > 1:
        raise UserError(f"{what} has floats from {low:.4g} to {high:.4g} outside [0, 1]: {_rescaling(low, high)}.")
    _refuse_dark(255 * high, what, "divided by 255 twice: store x * 255")
    levels = np.empty(x.shape, np.uint8)
    for part, out in zip(_chunks(x), _chunks(levels), strict=True):
        scaled = part.astype(np.float32) * np.float32(255)
        nearest = np.rint(scaled)
        if np.abs(scaled - nearest).max() > 255 * EXACT:
            log.info("%s: floats that are not multiples of 1/255 are kept as float32", what)
            return x if x.dtype == np.float32 else x.astype(np.float32)
        out[...] = nearest
    log.info("%s: the floats are multiples of 1/255 and are kept as 8-bit pixels, which loses nothing", what)
    return levels


def _rescaling(low: float, high: float) -> str:
    if low >= -0.1 and high <= 1.1:
        return "cut the overshoot with np.clip(x, 0, 1)"
    if low >= -0.501 and high <= 0.501:
        return "store x + 0.5"
    if low >= -1.001 and high <= 1.001:
        return "store (x + 1) / 2"
    if low < 0 and high > DARK:
        return "shift and scale them so that black is 0 and white is 1"
    if low < 0:
        return "undo the normalization with x * std + mean"
    if DARK < high <= 255:
        return "divide by 255"
    if 255 < high <= 65535:
        return "divide by the value of white (65535 for 16-bit pixels)"
    return "divide by the value of white"


def _integers(x: np.ndarray, what: str) -> np.ndarray:
    low, high = int(x.min()), int(x.max())
    if -128 <= low < 0 and high <= 127:
        raise UserError(f"{what} has integers from {low} to {high}: store (x.astype(np.int16) + 128).astype(np.uint8).")
    if low < 0 or high > 255:
        raise UserError(
            f"{what} is of type {x.dtype} with values from {low} to {high}: store pixels as floats in [0, 1], that is "
            "divided by the value of white (65535 for 16-bit pixels, 4095 for 12-bit ones)."
        )
    log.info("%s: integers of type %s within 0 .. 255 are kept as uint8", what, x.dtype)
    return x.astype(np.uint8)


def _eight_bits(x: np.ndarray, what: str) -> np.ndarray:
    brightest = 0
    for part in _chunks(x):
        brightest = max(brightest, int(part.max()))
        if brightest > DARK:  # nearly always in the first part, so that large files are not read for this
            return x
    _refuse_dark(brightest, what, "a 0/1 image that was saved unscaled: store x * 255")
    return x


def _refuse_dark(brightest: float, what: str, reason: str) -> None:
    if brightest == 0:
        raise UserError(f"{what} holds black images only (every pixel is 0): write or fetch it again.")
    if brightest <= 1.001:  # floats are not exact
        raise UserError(
            f"{what} is nearly black, its brightest pixel is {brightest:.3g} of 255: it is probably {reason}."
        )
    if brightest <= DARK:
        log.warning(
            "%s is dark: its brightest pixel is %.3g of 255. If that is meant to be white, scale the pixels up.",
            what,
            brightest,
        )
