"""What is refused where it enters: images, labels and answers on which every attack would report nonsense.

The messages are the same for all attacks, on the command line and in Python.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from robustforge.attacks.core.surface import Surface
from robustforge.types import DefenseOutput, UserError


def check_images(x: Tensor) -> None:
    """Refuses images that are not float (B, C, H, W), finite and in [0, 1].

    Raises:
        UserError: another type, shape or range, or NaN.
    """
    if x.dim() != 4 or not x.is_floating_point():
        raise UserError(f"Images must be float (B, C, H, W); got {_kind(x)}.")
    if not x.numel():
        return
    low, high = float(x.min()), float(x.max())
    if not (low >= 0 and high <= 1):  # NaN is neither
        raise UserError(
            f"Images must lie in [0, 1]; these span [{low:.4g}, {high:.4g}]. Normalization belongs inside the network."
        )


def check_labels(y: Tensor, count: int) -> Tensor:
    """Refuses labels that are not one whole number of 0 or more for each image.

    Args:
        y: (B,) labels.
        count: number of images.

    Returns:
        (B,) int64.

    Raises:
        UserError: one-hot or float labels, another number of them, or a negative one.
    """
    if y.dim() == 2 and len(y) == count and y.shape[1] > 1:
        raise UserError(f"Labels must be (B,) class numbers, and these are one-hot or scores {_kind(y)}: y.argmax(1).")
    if y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
        raise UserError(f"Labels must be integers, and these are {_kind(y)}: give class numbers, as in y.long().")
    if y.shape != (count,):
        raise UserError(f"Labels must be one for each of the {count} images, and these are {_kind(y)}.")
    if count and int(y.min()) < 0:
        raise UserError(f"Labels must be numbered from 0, and one of these is {int(y.min())}: renumber or remove it.")
    return y.long()


def check_answer(logits: Any, count: int, highest: int = 0) -> None:
    """Refuses an answer that is not one row of two or more float logits for each image.

    Args:
        logits: what the system answered.
        count: number of images that it was asked.
        highest: label that there is; the classes must reach as far.

    Raises:
        UserError: another type or shape, one logit, or fewer classes than labels.
    """
    if not isinstance(logits, Tensor) or not logits.is_floating_point():
        kind = _kind(logits) if isinstance(logits, Tensor) else f"{type(logits).__name__}"
        raise UserError(f"The model must answer float logits (B, K), and answers {kind}.")
    if logits.shape in ((count,), (count, 1)):
        raise UserError(
            f"The model answers one value an image, {tuple(logits.shape)}, and attacks need a logit for each of K >= 2 "
            "classes: give lambda x: torch.nn.functional.pad(model(x).view(-1, 1), (1, 0)), whose first logit is 0."
        )
    if logits.dim() != 2 or len(logits) != count:
        raise UserError(f"The model must answer ({count}, K) logits for {count} images, and answers {_kind(logits)}.")
    if highest >= logits.shape[1]:
        raise UserError(
            f"A label is {highest}, and the model answers {logits.shape[1]} logits, for the classes 0 to "
            f"{logits.shape[1] - 1}: renumber the labels, or give the model that they belong to."
        )


def checked(surface: Surface, y: Tensor) -> Surface:
    """The same surface with every answer looked at by :func:`check_answer`, for attacks on images with labels ``y``."""
    highest = int(y.max()) if len(y) else 0

    def attacker_logits(x: Tensor, given: Tensor) -> Any:
        views = surface.attacker_logits(x, given)
        check_answer(views[0], len(x), highest)
        return views

    def judged(function: Callable[[Tensor, Tensor], DefenseOutput]) -> Callable[[Tensor, Tensor], DefenseOutput]:
        def answer(x: Tensor, given: Tensor) -> DefenseOutput:
            output = function(x, given)
            check_answer(output.logits, len(x), highest)
            return output

        return answer

    whole = surface.attacker_output
    return replace(
        surface,
        attacker_logits=attacker_logits,
        system=judged(surface.system),
        attacker_output=None if whole is None else judged(whole),
    )


def _kind(values: Tensor) -> str:
    return f"{str(values.dtype).removeprefix('torch.')} of shape {tuple(values.shape)}"
