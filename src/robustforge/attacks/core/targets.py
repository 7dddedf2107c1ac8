"""Which class a targeted attack wants."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from robustforge.randomness import SampleRandom
from robustforge.ranges import NonNegativeInt
from robustforge.types import UserError

Word = Literal["next", "random", "least_likely", "runner_up"]
TARGETS = get_args(Word)
Target = Word | NonNegativeInt  # or the number of a class


def choose_targets(target: str | int, logits: Tensor, y: Tensor, index: Tensor, seed: int = 0) -> Tensor:
    """A wrong class for every image.

    Args:
        target: ``next`` (y + 1), ``random``, ``least_likely`` or ``runner_up`` (most likely wrong class), or the number
            of a class; images of that very class get the next one.
        logits: (B, K) of the clean images.
        y: (B,) true labels.
        index: (B,) sample numbers, which address the random draws.
        seed: of the random draws.

    Returns:
        (B,) int64, nowhere equal to ``y``.

    Raises:
        UserError: an unknown word, a class that does not exist, or fewer than two classes.
    """
    classes = logits.shape[1]
    if classes < 2:
        raise UserError("A targeted attack needs at least two classes.")
    following = (y + 1) % classes
    if isinstance(target, int):
        if not 0 <= target < classes:
            raise UserError(f"attack.target is {target}: give a class between 0 and {classes - 1}, or a word.")
        return torch.where(y == target, following, target)
    if target == "next":
        return following
    if target == "random":
        draw = SampleRandom(seed, "target").uniform(index, (1,)).flatten()
        return (y + 1 + (draw * (classes - 1)).long()) % classes
    wrong = logits.float().scatter(1, y[:, None], float("nan"))
    if target == "least_likely":
        return wrong.nan_to_num(nan=float("inf")).argmin(1)
    if target == "runner_up":
        return wrong.nan_to_num(nan=float("-inf")).argmax(1)
    raise UserError(f"attack.target is '{target}': choose one of {', '.join(TARGETS)}, a class number, or null.")


def check_target(name: str, target: object, num_classes: int) -> None:
    """Raises UserError for a target that is none of the classes."""
    if isinstance(target, int) and target >= num_classes:
        raise UserError(
            f"Attack {name} has target={target}: give a class between 0 and {num_classes - 1}, or one of "
            f"{', '.join(TARGETS)}."
        )
