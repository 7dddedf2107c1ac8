"""The plain classifier that defenses start from or are compared with, trained once for all of them."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from robustforge.defenses.base import Defense
from robustforge.defenses.stages import FitStage, Training
from robustforge.types import Batch


def plain_stage(defense: Defense, model_description: Any, training: Training) -> FitStage:
    """Trains ``defense.undefended`` on clean images.

    Args:
        defense: has the classifier as ``undefended``.
        model_description: plain description of its factory.
        training: how it is optimized.
    """

    def losses(batch: Batch) -> dict[str, Tensor]:
        return {"cross_entropy": F.cross_entropy(defense.undefended(batch.x), batch.y)}

    def validate(batch: Batch) -> dict[str, Tensor]:
        return {"accuracy": (defense.undefended(batch.x).argmax(1) == batch.y).float()}

    return FitStage("undefended", ("undefended",), losses, training, {"model": model_description}, validate=validate)
