"""The words every layer shares: frozen dataclasses and one error type, no logic beyond validation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:  # the command line needs UserError and no torch: --help must not wait for it
    from torch import Tensor

Norm = Literal["linf", "l2", "l1", "l0", "l0_pixels"]
NORMS: tuple[Norm, ...] = get_args(Norm)
COUNTS: tuple[Norm, ...] = ("l0", "l0_pixels")  # norms whose radius is a number of things that may differ


class UserError(Exception):
    """Something the person at the keyboard can mend. The message is one sentence that says what to do; exit code 2."""


class DamagedError(UserError, ValueError):
    """A stored file is not what was written there: the message names it."""


class DivergedError(Exception):
    """A loss or weight became NaN or infinite. The message names stage, epoch, step and term; exit code 1."""


def radius(value: float | str) -> float:
    """A radius in pixel units; a fraction may be given as text, as the field writes it.

    Args:
        value: a number, or text such as ``8/255`` or ``0.1``.

    Raises:
        UserError: the text is neither a number nor a fraction.

    Example:
        >>> radius("8/255") == 8 / 255
        True
    """
    if not isinstance(value, str):
        return value
    try:
        above, _, below = value.partition("/")
        return float(above) / float(below or 1)
    except (ValueError, ZeroDivisionError):
        raise UserError(f"'{value}' is no radius: give a number or a fraction, such as 0.1 or 8/255.") from None


@dataclass(frozen=True)
class Threat:
    """What the attacker may do: a ball of radius ``eps`` around the clean image, intersected with [0, 1].

    Attributes:
        norm: ``linf``, ``l2``, ``l1``, or a count of what differs: ``l0`` counts values, each channel for itself
            (sigma-zero, AttackBench), ``l0_pixels`` positions at which any channel differs (Sparse-RS, one-pixel). For
            gray images the two are the same.
        eps: radius in pixel units of [0, 1]; for ``linf`` at most 1. A fraction may be given as text: ``8/255``. For
            ``l0`` and ``l0_pixels`` a whole number.

    Raises:
        UserError: ``eps`` is negative, more than 1 for ``linf``, or not whole for a count, or the norm is unknown.
    """

    norm: Norm = "linf"
    eps: float = 8 / 255

    def __post_init__(self) -> None:
        if self.norm not in NORMS:
            raise UserError(f"threat.norm is '{self.norm}': choose one of {', '.join(NORMS)}.")
        object.__setattr__(self, "eps", radius(self.eps))
        if not 0 <= self.eps < float("inf") or (self.norm == "linf" and self.eps > 1):
            raise UserError(
                f"threat.eps is {self.eps}: give a radius in units of [0, 1] pixels, between 0 and 1 for linf "
                "(such as 8/255)."
            )
        if self.norm in COUNTS and self.eps != int(self.eps):
            raise UserError(
                f"threat.eps is {self.eps}, and {self.norm} counts what may differ: give a whole number, such as 24."
            )


@dataclass(frozen=True)
class DefenseOutput:
    """What any defense answers.

    Attributes:
        logits: (B, K) float.
        risk: (B,) float, higher = more suspicious, or None for a defense that never abstains.
        purified: (B, C, H, W), the image the classifier saw, or None.
        detector_scores: (B, J), several scores whose maximum is ``risk``, for attackers that treat each as a
            constraint of its own; None for a single score.
    """

    logits: Tensor
    risk: Tensor | None = None
    purified: Tensor | None = None
    detector_scores: Tensor | None = None


@dataclass(frozen=True)
class Trace:
    """Evidence on whether an attack's optimization worked; NaN for images that it took no gradient of.

    Attributes:
        zero_gradient: (B,) share in [0, 1] of exactly zero entries in the image's first gradient.
        loss_gain: (B,) best value of the attacker's objective minus its first; at least 0.
        best_at: (B,) where on the way the best value was met, from 0 (first gradient) to 1 (last).
    """

    zero_gradient: Tensor
    loss_gain: Tensor
    best_at: Tensor


@dataclass(frozen=True)
class Member:
    """What one attack of an ensemble did.

    Attributes:
        name: of the attack.
        attacked: (B,) bool, the images that it ran on.
        broken: (B,) bool, those that were right until it came: neither wrong from the start nor broken before.
        forwards: (B,) int64, its forward passes on each image.
        backwards: (B,) int64, its backward passes on each image.
        sampled: whether it ran on a sample of what still stood, and left the others alone.
    """

    name: str
    attacked: Tensor
    broken: Tensor
    forwards: Tensor
    backwards: Tensor
    sampled: bool = False


@dataclass(frozen=True)
class AttackResult:
    """What any attack returns.

    Attributes:
        x_adv: (B, C, H, W) float32 in [0, 1], inside the threat's ball.
        success: (B,) bool, judged in float32 on ``x_adv`` as returned, by the attacked system.
        forwards: (B,) int64, forward passes spent on each image.
        backwards: (B,) int64, backward passes spent on each image.
        trace: what the gradients looked like on the way, or None for attacks without gradients.
        members: of an ensemble, what each attack did, in their order; empty for a single attack.
    """

    x_adv: Tensor
    success: Tensor
    forwards: Tensor
    backwards: Tensor
    trace: Trace | None = None
    members: tuple[Member, ...] = ()


@dataclass(frozen=True)
class Batch:
    """One batch, as every training step receives it.

    Attributes:
        x: (B, C, H, W) float32 in [0, 1], clean and augmented.
        y: (B,) int64 labels.
        index: (B,) int64 position in the split, stable over epochs, runs and devices.
        x_adv: (B, C, H, W) float32 in [0, 1], the stored adversarial partner under the same augmentation, or None.
    """

    x: Tensor
    y: Tensor
    index: Tensor
    x_adv: Tensor | None = None
