"""The plain classifier that defenses start from or are compared with, trained once for all of them, or given."""

from __future__ import annotations

from typing import Any, Protocol

import torch.nn.functional as F
from torch import Tensor, nn

from robustforge.attacks.core.attack import Attack
from robustforge.defenses.base import Defense, classify
from robustforge.defenses.pretrained.weights import load_weights
from robustforge.defenses.stages import CalibrateStage, CraftStage, FitStage
from robustforge.fingerprint import weights_hash
from robustforge.types import Batch, Threat, UserError


class Comparable(Protocol):
    """A defense that is compared with a plain classifier, or starts from it.

    Attributes:
        undefended: the classifier, (B, C, H, W) -> (B, K), made by the defense's argument ``model``.
        arguments: the defense's arguments by name.
        undefended_given: see :class:`robustforge.defenses.base.Defense`.
    """

    undefended: nn.Module
    arguments: dict[str, Any]
    undefended_given: str | None


def take_undefended(defense: Defense, weights: str) -> None:
    """Gives a defense its undefended classifier, which is then not trained.

    Args:
        defense: one that trains such a classifier; not trained yet.
        weights: file, see :func:`robustforge.defenses.pretrained.weights.load_weights`.

    Raises:
        UserError: the defense has no such classifier, or the weights are not its own.
    """
    network = getattr(defense, "undefended", None)
    if network is None or all(stage.name != "undefended" for stage in defense.stages()):
        raise UserError(
            f"defense.undefended_from is given, and this {type(defense).__name__} trains no undefended classifier: "
            "leave it out."
        )
    load_weights(network, weights, "defense.undefended_from", "model=resnet18")
    defense.undefended_given = weights_hash(network.state_dict())


def plain_stage(defense: Comparable, training: str = "undefended_training") -> FitStage | CalibrateStage:
    """Trains ``defense.undefended`` on clean images; one product for all defenses with the same classifier.

    One that was given (:func:`take_undefended`) is kept as it is, in a product that goes by its weights.

    Args:
        defense: whose classifier it is.
        training: the argument that tells how it is optimized.
    """
    takes = ("model", training)
    if defense.undefended_given is not None:
        weights = {"weights": defense.undefended_given}
        return CalibrateStage("undefended", ("undefended",), lambda batches: None, settings=weights, takes=takes)

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
        takes=takes,
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
