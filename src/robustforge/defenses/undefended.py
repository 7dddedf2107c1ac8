"""The plain classifier that defenses start from or are compared with, trained once for all of them."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from robustforge.attacks.core.attack import Attack
from robustforge.defenses.base import Defense, classify
from robustforge.defenses.stages import CraftStage, FitStage
from robustforge.types import Batch, Threat


def plain_stage(defense: Defense, training: str = "undefended_training") -> FitStage:
    """Trains ``defense.undefended`` on clean images; one product for all defenses with the same classifier.

    Args:
        defense: has the classifier as ``undefended``, made by its argument ``model``.
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


def offline_stage(defense: Defense, attack: Attack, threat: Threat, takes: tuple[str, ...]) -> CraftStage:
    """Attacks the undefended classifier's training images once; one product for all defenses that ask for the same.

    Args:
        defense: has the classifier as ``undefended``.
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
