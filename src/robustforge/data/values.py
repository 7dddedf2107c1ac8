"""What the configuration of a data set may say: shapes, statistics and counts, each refused in one sentence."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

from robustforge.types import UserError


def whole(key: str, value: Any, least: int) -> int:
    """``value`` as an integer.

    Args:
        key: the name below ``dataset`` in messages.
        value: of the configuration.
        least: the smallest value allowed.

    Raises:
        UserError: no whole number, or one below ``least``.
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if number < least or isinstance(value, bool):
        raise UserError(f"dataset.{key} is {value}: give {least} or more, as a whole number.")
    return number


def image_shape(shape: Any) -> tuple[int, int, int]:
    """``shape`` as (C, H, W).

    Raises:
        UserError: not three whole numbers above 0, or channels last. (More than 4 channels of images that are 1, 3 or 4
            pixels wide and not much higher than their number of channels count as channels last.)
    """
    try:
        channels, height, width = (whole("shape", size, 1) for size in shape)
    except (TypeError, ValueError, UserError):
        shown = list(shape) if isinstance(shape, Sequence) and not isinstance(shape, str) else shape
        raise UserError(f"dataset.shape is {shown}: give [channels, height, width], for example [3,32,32].") from None
    small, large = sorted((channels, height))
    if width in (1, 3, 4) and small > 4 and large <= 4 * small:
        raise UserError(
            f"dataset.shape is {[channels, height, width]}, with the channels last: give [channels, height, width], "
            f"here [{width},{channels},{height}]."
        )
    return channels, height, width


def per_channel(key: str, values: Sequence[float], channels: int) -> tuple[float, ...]:
    """``dataset.mean`` or ``dataset.std`` as one value for each channel.

    Raises:
        UserError: another number of values, or values outside [0, 1] (0 is no standard deviation).
    """
    found = tuple(float(value) for value in values)
    found = found * channels if len(found) == 1 else found
    if len(found) != channels:
        raise UserError(f"dataset.{key} has {len(found)} values: give one, or one for each of {channels} channels.")
    if not all(0 <= value <= 1 for value in found) or (key == "std" and 0 in found):
        raise UserError(
            f"dataset.{key} is {list(found)}: give it in units of [0, 1] pixels (divided by 255, where it was measured "
            f"on 8-bit pixels){', above 0' if key == 'std' else ''}."
        )
    return found
