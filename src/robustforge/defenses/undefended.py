"""The plain classifier that defenses start from or are compared with, trained once for all of them."""

from __future__ import annotations

from typing import Any, Protocol

import torch.nn.functional as F
from torch import Tensor, nn

from robustforge.attacks.core.attack import Attack
from robustforge.defenses.base import classify
from robustforge.defenses.stages import CraftStage, FitStage
from robustforge.types import Batch, Threat


class Comparable(Protocol):
    """A defense that is compared with a plain classifier, or starts from it.

    Attributes:
        undefended: the classifier, (B, C, H, W) -> (B, K), made by the defense's argument ``model``.
        arguments: the defense's arguments by name.
    """

    undefended: nn.Module
    arguments: dict[str, Any]


def plain_stage(defense: Comparable, training: str = "undefended_training") -> FitStage:
    """Trains ``defense.undefended`` on clean images; one product for all defenses with the same classifier.

    Args:
        defense: whose classifier it is.
        training: the argument that tells how it is optimized.
    """

    def losses(batch: Batch) -> dict[str, Tensor]:
        return {"cross_entropy": F.cross_entropy(defense.undefended(batch.x), batch.y)}

    def validate(batch: Batch) -> dict[str, Tensor]:
        return {"accuracy": (defense.undefended(batch.x).argmax(1) == batch.y).float()}

    return FitStage(
        "undefended",
        ("undefended",),
        losses,
        defense.arguments[training],
        {"model": defense.arguments["model"]},
        validate=validate,
        takes=("model", training),
        shared=True,
    )


def offline_stage(defense: Comparable, attack: Attack, threat: Threat, takes: tuple[str, ...]) -> CraftStage:
    """Attacks the undefended classifier's training images once; one product for all defenses that ask for the same.

    Args:
        defense: whose classifier it is.
        attack: which attack.
        threat: its budget.
        takes: the arguments of the defense that tell them.
    """
    return CraftStage(
        "adversarial_set",
        lambda: classify(defense.undefended)["end_to_end"],
        attack,
        threat,
        uses=("undefended",),
        takes=takes,
        shared=True,
    )
