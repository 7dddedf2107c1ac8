"""What a defense declares of its training: stages, each one Lightning fit or one crafting pass, with one product."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from robustforge.attacks.core.attack import Attack
from robustforge.attacks.core.surface import Surface
from robustforge.hints import check_fields
from robustforge.ranges import PositiveFloat, PositiveInt
from robustforge.types import Batch, Threat, UserError

Factory = Callable[[], nn.Module]
Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class Training:
    """How one stage is optimized.

    Attributes:
        epochs: passes over the training split.
        optimizer: parameters -> torch optimizer, as a ``functools.partial``.
        schedule: progress in [0, 1] -> factor on the learning rate, applied every step.
        gradient_clip: largest gradient norm, or None.

    Raises:
        UserError: no epoch at all.
    """

    epochs: PositiveInt
    optimizer: Callable[..., torch.optim.Optimizer]
    schedule: Callable[[float], float]
    gradient_clip: PositiveFloat | None = None

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class FitStage:
    """One Lightning fit.

    Attributes:
        name: as shown in progress bars, logs and the store.
        trains: attribute names of the defense's submodules that this stage trains; they are its product.
        losses: batch -> weighted loss terms, summed into the loss and logged apart.
        training: epochs, optimizer, schedule.
        takes: constructor arguments of the defense that the product depends on (``fusion.per_class``: a field of one),
            part of its key; None for all but the evaluation-only ones. Arguments that no stage names and that are not
            evaluation-only count for every stage.
        settings: what the product depends on besides them, such as values that are derived from arguments.
        shared: the stage is the same for every defense that has it: its key holds ``settings`` alone, no argument and
            no source of the defense.
        uses: names of earlier stages it consumes.
        adversarial_set: name of the crafting stage whose images are paired with the batches, or None.
        validate: batch -> per-sample metrics (B,), averaged over the held-out split after each epoch.
        prepare: called once before the first epoch (for example to start from another stage's weights).
        best: name of a metric of ``validate``: keep the weights of the epoch where it is highest; None keeps the last.
        average: decay of a running average of the weights, in (0, 1), which is then what is validated and kept; None
            for none.
        rates: factors on the learning rate of some parameters, by the prefix of their names in the defense.
        erasing: whether its training images may be erased in part, as the data's augmentation says; False leaves
            crop and flips alone.
        replays: how often each batch is shown in a row.

    Raises:
        UserError: a decay outside (0, 1).
    """

    name: str
    trains: tuple[str, ...]
    losses: Callable[[Batch], dict[str, Tensor]]
    training: Training
    settings: Mapping[str, Any] = field(default_factory=dict)
    uses: tuple[str, ...] = ()
    adversarial_set: str | None = None
    validate: Callable[[Batch], dict[str, Tensor]] | None = None
    prepare: Callable[[], None] | None = None
    best: str | None = None
    average: float | None = None
    rates: Mapping[str, float] = field(default_factory=dict)
    replays: int = 1
    takes: tuple[str, ...] | None = None
    shared: bool = False
    erasing: bool = True

    def __post_init__(self) -> None:
        check_average(self.average)


def check_average(decay: float | None) -> None:
    """Raises UserError for a decay of the running average of the weights that is not in (0, 1)."""
    if decay is not None and not 0 < decay < 1:
        raise UserError(f"The running average of the weights has decay {decay}: give one in (0, 1), or null for none.")


@dataclass(frozen=True)
class CraftStage:
    """One pass of an attack over the training split; its product is the adversarial set.

    Attributes:
        name: as shown and stored.
        surface: makes the surface under attack once the stages in ``uses`` are loaded.
        attack: which attack.
        threat: its budget.
        uses: names of earlier stages it consumes.
        takes: constructor arguments of the defense that the product depends on (``fusion.per_class``: a field of one),
            part of its key; None for all but the evaluation-only ones. Arguments that no stage names and that are not
            evaluation-only count for every stage.
        settings: what the product depends on besides them, such as values that are derived from arguments.
        source: an earlier crafting stage, also in ``uses``, whose images are attacked in place of the clean ones.
        shared: as in :class:`FitStage`.
    """

    name: str
    surface: Callable[[], Surface]
    attack: Attack
    threat: Threat
    uses: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    source: str | None = None
    takes: tuple[str, ...] | None = None
    shared: bool = False


@dataclass(frozen=True)
class CalibrateStage:
    """One pass over one split, without an optimizer: thresholds, covariances, dictionaries.

    Attributes:
        name: as shown and stored.
        fits: attribute names of the defense's submodules whose buffers it fills; they are its product.
        fit: batches of the whole split, in order and unaugmented -> fills them.
        uses: names of earlier stages it consumes.
        takes: constructor arguments of the defense that the product depends on (``fusion.per_class``: a field of one),
            part of its key; None for all but the evaluation-only ones. Arguments that no stage names and that are not
            evaluation-only count for every stage.
        settings: what the product depends on besides them, such as values that are derived from arguments.
        split: ``calibration``, held-out training images; or ``train``, or ``test`` (only to reproduce a leak).
    """

    name: str
    fits: tuple[str, ...]
    fit: Callable[[Iterable[Batch]], None]
    uses: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    split: str = "calibration"
    takes: tuple[str, ...] | None = None


Stage = FitStage | CraftStage | CalibrateStage


def derive_seed(seed: int, *path: object) -> int:
    """A seed below 2**31 for one use of randomness, independent of every other ``path``."""
    text = "/".join(map(str, (seed, *path)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "little") % 2**31


def seed_everywhere(seed: int) -> None:
    """Seeds Python, numpy and torch (every device)."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def build_seeded(factory: Callable[..., Network], seed: int, name: str) -> Network:
    """Builds a network whose initial weights depend on (seed, name) only, not on what was built before it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "init", name))
        return factory()
