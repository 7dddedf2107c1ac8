"""What a defense declares of its training: stages, each one Lightning fit or one crafting pass, with one product."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from robustforge.attacks.core.attack import Attack
from robustforge.attacks.core.surface import Surface
from robustforge.types import Batch, Threat, UserError

Factory = Callable[[], nn.Module]


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

    epochs: int
    optimizer: Callable[..., torch.optim.Optimizer]
    schedule: Callable[[float], float]
    gradient_clip: float | None = None

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise UserError(f"A stage was given {self.epochs} epochs: give at least 1.")


@dataclass(frozen=True)
class FitStage:
    """One Lightning fit.

    Attributes:
        name: as shown in progress bars, logs and the store.
        trains: attribute names of the defense's submodules that this stage trains; they are its product.
        losses: batch -> weighted loss terms, summed into the loss and logged apart.
        training: epochs, optimizer, schedule.
        settings: everything else the product depends on; part of its key.
        uses: names of earlier stages it consumes.
        adversarial_set: name of the crafting stage whose images are paired with the batches, or None.
        validate: batch -> per-sample metrics (B,), averaged over the held-out split after each epoch.
        prepare: called once before the first epoch (for example to start from another stage's weights).
        best: name of a metric of ``validate``: keep the weights of the epoch where it is highest; None keeps the last.
        average: decay of a running average of the weights, in (0, 1), which is then what is validated and kept; None
            for none.
        rates: factors on the learning rate of some parameters, by the prefix of their names in the defense.

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
        settings: everything else the product depends on.
        source: an earlier crafting stage, also in ``uses``, whose images are attacked in place of the clean ones.
    """

    name: str
    surface: Callable[[], Surface]
    attack: Attack
    threat: Threat
    uses: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    source: str | None = None


@dataclass(frozen=True)
class CalibrateStage:
    """One pass over one split, without an optimizer: thresholds, covariances, dictionaries.

    Attributes:
        name: as shown and stored.
        fits: attribute names of the defense's submodules whose buffers it fills; they are its product.
        fit: batches of the whole split, in order and unaugmented -> fills them.
        uses: names of earlier stages it consumes.
        settings: everything else the product depends on.
        split: ``calibration``, held-out training images; or ``train``, or ``test`` (only to reproduce a leak).
    """

    name: str
    fits: tuple[str, ...]
    fit: Callable[[Iterable[Batch]], None]
    uses: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    split: str = "calibration"


Stage = FitStage | CraftStage | CalibrateStage


def describe(value: Any) -> Any:
    """Turns what configs build (partials, dataclasses, scalars, containers) into plain JSON values.

    Raises:
        TypeError: a value has no stable description, such as a live module or a lambda.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, functools.partial):
        return {"_target_": describe(value.func), "args": describe(value.args), **describe(value.keywords)}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: describe(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"_target_": _qualified(type(value)), **fields}
    if isinstance(value, Mapping):
        return {str(key): describe(item) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [describe(item) for item in value]
    if isinstance(value, type) or (callable(value) and getattr(value, "__qualname__", "<").isidentifier()):
        return _qualified(value)
    raise TypeError(f"{value!r} has no stable description; pass a partial, a dataclass or plain values instead.")


def _qualified(function: Any) -> str:
    return f"{function.__module__}.{function.__qualname__}"


def derive_seed(seed: int, *path: object) -> int:
    """A seed below 2**31 for one use of randomness, independent of every other ``path``."""
    text = "/".join(map(str, (seed, *path)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "little") % 2**31


def seed_everywhere(seed: int) -> None:
    """Seeds Python, numpy and torch (every device)."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def build_seeded(factory: Factory, seed: int, name: str) -> nn.Module:
    """Builds a network whose initial weights depend on (seed, name) only, not on what was built before it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "init", name))
        return factory()
