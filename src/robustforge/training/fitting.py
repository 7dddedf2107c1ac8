"""What a fit must not start or end with: each of these would fail, or train something else, in the middle of a run."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from robustforge.data.datamodule import ImageData
from robustforge.defenses.base import Defense
from robustforge.defenses.stages import CraftStage, FitStage, Stage
from robustforge.types import UserError

# Lightning's words, its short forms included
PRECISIONS = ("auto", "32-true", "bf16-mixed", "16-mixed", "32", "bf16", "16")


def check_precision(word: str) -> None:
    """Raises UserError unless weights stay float32, in which attacks are judged and products are stored."""
    if word not in PRECISIONS:
        raise UserError(
            f"trainer.precision is '{word}', and weights are kept in float32 here: give one of "
            f"{', '.join(PRECISIONS[:4])}."
        )


@contextmanager
def lightnings_refusals() -> Iterator[None]:
    """Around the construction of a Trainer: settings that Lightning refuses are the caller's to mend.

    Raises:
        UserError: the first line of Lightning's message.
    """
    try:
        yield
    except (MisconfigurationException, ValueError, TypeError, ImportError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"Lightning's Trainer refuses what is set below trainer: {reason.rstrip('.')}.") from error


def check_optimizers(stages: Iterable[tuple[Defense, Stage]]) -> None:
    """Tries the optimizer and the schedule of every stage, because each knows best which values go together.

    Args:
        stages: of a run, each with the defense that declares it.

    Raises:
        UserError: an optimizer refuses its settings, or a schedule answers no factor of at least 0.
    """
    for _, stage in stages:
        if not isinstance(stage, FitStage):
            continue
        try:
            stage.training.optimizer([nn.Parameter(torch.zeros(1))])
            factors = [float(stage.training.schedule(progress)) for progress in (0.0, 0.5, 1.0)]
        except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
            reason = " ".join(str(error).split()).rstrip(".")
            raise UserError(f"The settings of stage {stage.name} do not fit together ({reason}).") from error
        if not all(0 <= factor < math.inf for factor in factors):
            raise UserError(f"The schedule of stage {stage.name} answers {factors}: its factors must be 0 or more.")


def check_batches(stages: Iterable[tuple[Defense, Stage]], data: ImageData) -> None:
    """Refuses to train batch normalization on single images, which have no statistics of a batch.

    Incomplete last batches are left out of training, so that all batches of an epoch have one size.

    Args:
        stages: of a run, each with the defense that declares it.
        data: set up.

    Raises:
        UserError: there are no training images; or a network in training has batch normalization, and batches have one
            image.
    """
    images = len(data.train) // data.world_size
    if images == 0 and any(isinstance(stage, FitStage | CraftStage) for _, stage in stages):
        raise UserError(
            f"There are {len(data.train)} training images for {data.world_size} processes: give at least one for each."
        )
    if min(data.batch_size, images) != 1:
        return
    for owner, stage in stages:
        normalized = isinstance(stage, FitStage) and _normalized(owner, stage.trains)
        if normalized:
            advice = "raise dataset.batch_size" if data.batch_size == 1 else "give more training images"
            raise UserError(
                f"Training batches have one image, and {normalized} of stage {stage.name} has batch normalization, "
                f"which needs two or more: {advice}, or take networks without it."
            )


def check_trained(steps: int, stage: str) -> None:
    """Raises UserError where a finished fit has made no step: its networks are what they were before."""
    if steps == 0:
        raise UserError(
            f"Stage {stage} made no training step, and nothing was stored: raise what limits it (trainer."
            "limit_train_batches, trainer.max_steps), or give more training images."
        )


def _normalized(owner: nn.Module, names: Iterable[str]) -> str:
    """The first of the submodules ``names`` with batch normalization, or an empty text."""
    has = (name for name in names if any(isinstance(m, _BatchNorm) for m in getattr(owner, name).modules()))
    return next(has, "")
