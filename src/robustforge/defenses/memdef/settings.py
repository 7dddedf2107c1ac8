"""The two choices of a Memory Defense run as data: how the selector is trained, and how the stack is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from robustforge.attacks.core.attack import Attack
from robustforge.defenses.robust_loss import AdversarialLoss
from robustforge.defenses.stages import Training
from robustforge.hints import check_fields
from robustforge.ranges import NonNegativeFloat, Share
from robustforge.types import Threat, UserError


@dataclass(frozen=True)
class SelectorSettings:
    """How classifier-A, which opens the slot, is trained.

    Attributes:
        kind: ``clean`` (the paper's "ben": no robust training), ``offline`` (the paper's "pgd": retrained on the 50/50
            union of clean images and one static adversarial set) or ``pgd`` (genuine min-max training; ours).
        training: optimization of the robust stage; unused for ``clean``.
        attack: crafts the static set (``offline``) or the examples of each step (``pgd``).
        threat: the budget of that attack.
        clean_weight: share of clean cross-entropy in ``pgd`` with ``madry``.
        successful_only: of the static set, train on the images that classifier-A, trained clean, labels wrong
            (``offline``; the paper's text. Its released code takes all).
        loss: of ``pgd``: ``madry``, ``trades`` or ``mart``, see :class:`AdversarialLoss`.
        beta: weight of the divergence in ``trades`` and ``mart``.
        keep_best: of ``pgd``: keep the epoch of the highest robust accuracy on held-out images.

    Raises:
        UserError: unknown kind or loss.

    Notes:
        Whether an image is a success is asked of classifier-A on the image as it is trained on, cropped and flipped
        like its clean partner.
    """

    kind: Literal["clean", "offline", "pgd"]
    training: Training
    attack: Attack
    threat: Threat
    clean_weight: Share = 0.5
    successful_only: bool = False
    loss: Literal["madry", "trades", "mart"] = "madry"
    beta: NonNegativeFloat = 6.0
    keep_best: bool = True

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def best(self) -> str | None:
        """The held-out metric by which an epoch is chosen, or None for the last epoch."""
        return self.robust.best if self.keep_best and self.kind == "pgd" else None

    @property
    def robust(self) -> AdversarialLoss:
        """The min-max loss of ``pgd``."""
        return AdversarialLoss(self.attack, self.threat, self.loss, self.clean_weight, self.beta)


@dataclass(frozen=True)
class StackSettings:
    """How encoder, memory, decoder and classifier-B are trained (Eq. 13 and the joint cross-entropy).

    Attributes:
        training: optimization.
        alpha: weight of the addressing entropy (paper: unstated; 2e-4 as in MemAE's code).
        beta: weight of the non-target term (paper: 1e-4).
        gamma: weight of classifier-B's cross-entropy (ours: the paper's Eq. 13 omits it, its text does not).
        noise: standard deviation of the Gaussian noise on the encoder's input, pixel units.
        slot: who opens the slot in training: ``label`` (paper) or ``selector`` (as at test time).
        wrong_slot: share of training images whose slot is replaced by a random class, so that classifier-B must read
            the image instead of the slot's identity (ours; 0 in the paper).
        attack: makes adversarial inputs of the stack on the joint soft-slot surface; None trains on clean images only
            (paper).
        threat: budget of that attack.
        attack_warmup: share of the epochs that train on clean images only, before the attack sets in.
        clean_weight: share of clean images' loss once it has.

    Raises:
        UserError: unknown slot source, or a share outside [0, 1].
    """

    training: Training
    alpha: NonNegativeFloat = 2e-4
    beta: NonNegativeFloat = 1e-4
    gamma: NonNegativeFloat = 1.0
    noise: NonNegativeFloat = 0.01
    slot: Literal["label", "selector"] = "label"
    wrong_slot: Share = 0.0
    attack: Attack | None = None
    threat: Threat | None = None
    attack_warmup: Share = 0.0
    clean_weight: Share = 0.5

    def __post_init__(self) -> None:
        check_fields(self)
        if self.attack is not None and self.threat is None:
            raise UserError("The stack has an attack but no threat: give stack.threat as well.")
