"""Types and ranges of what a configuration holds beside the objects it builds, and of other libraries' settings.

The classes are tables for :mod:`robustforge.config.values`, which reads their type hints: nobody makes one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from annotated_types import Ge

from robustforge.ranges import (
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    PositiveShare,
    Seed,
    Share,
    ShareBelowOne,
)

Built = Callable[..., Any]  # a node with a _target_
GIVEN = ("undefended_from", "baseline")  # below ``defense``, and no arguments of it: config/defenses.py builds them


@dataclass
class Store:
    """Group ``store``."""

    made_by_other_code: Literal["warn", "remake"]
    resume_every: NonNegativeFloat = 5.0


@dataclass
class Paths:
    """Group ``paths`` of train.yaml."""

    data_dir: str
    output_dir: str
    store_dir: str
    exported: str | None = None  # of a run that is read from an exported folder


@dataclass
class Logger:
    """Group ``logger``."""

    kind: Literal["csv", "wandb", "tensorboard"]
    project: str | None = None
    entity: str | None = None
    group: str | None = None
    offline: bool = False
    images: NonNegativeInt = 12
    artifacts: Sequence[Literal["weights", "adversarial_set", "result"]] = ()


@dataclass
class Run:
    """``train.yaml``; groups of a defense's own (``inner``, ``stack``) may stand beside these."""

    defense_name: str
    name: str
    seed: Seed
    tags: Sequence[str]
    evaluate: bool
    split: Literal["train", "calibration", "test"]
    report: bool
    trust: str | Sequence[str]
    threads: PositiveInt | None
    store: Store
    paths: Paths
    logger: Logger
    callbacks: Mapping[str, Built | None]
    dataset: Built
    threat: Built
    attack: Built
    defense: Built
    protocol: Built
    trainer: Built


@dataclass
class Moved:
    """Where the files of a run are now: ``paths`` of evaluate.yaml and adversarial_set.yaml."""

    store_dir: str | None
    data_dir: str | None


@dataclass
class Data:
    """``dataset`` of evaluate.yaml and adversarial_set.yaml."""

    eps: NonNegativeFloat | None
    path: str | None


@dataclass
class Evaluate:
    """``evaluate.yaml``, but for its groups, which are checked with the run's."""

    run: str
    trust: str | Sequence[str]
    defense: Mapping[str, Any]
    seed: Seed
    split: Literal["train", "calibration", "test"]
    dataset: Data
    paths: Moved
    device: str
    progress: bool
    overwrite: bool
    shard: str | None
    merge: bool
    export: Literal["robustbench"] | None
    export_eps: NonNegativeFloat | None
    store: Store


@dataclass
class AdversarialSet:
    """``adversarial_set.yaml``, but for its groups."""

    run: str
    trust: str | Sequence[str]
    split: Literal["train", "calibration", "test"]
    surface: str
    out: str | None
    seed: Seed
    dataset: Data
    paths: Moved
    device: str
    progress: bool
    store: Store


_OPTIMIZER = {
    "lr": PositiveFloat,
    "momentum": ShareBelowOne,
    "dampening": Share,
    "weight_decay": NonNegativeFloat,
    "betas": tuple[ShareBelowOne, ShareBelowOne],
    "alpha": Share,
    "eps": NonNegativeFloat,
}
_TRAINER = {
    "accelerator": str,
    "strategy": str,
    "precision": str | int,  # and one of robustforge.training.fitting.PRECISIONS
    "num_nodes": PositiveInt,
    "fast_dev_run": bool | NonNegativeInt,
    "limit_train_batches": PositiveInt | PositiveShare | None,
    "limit_val_batches": NonNegativeInt | Share | None,
    "log_every_n_steps": NonNegativeInt,
    "accumulate_grad_batches": PositiveInt,
    "check_val_every_n_epoch": PositiveInt | None,
    "max_steps": Annotated[int, Ge(-1)],
    "deterministic": bool | Literal["warn"],
}
# hints in place of those of the classes below these names, which say less than their documentation
OTHERS: Mapping[str, Mapping[str, Any]] = {
    "torch.optim": _OPTIMIZER,
    "lightning.pytorch.trainer": _TRAINER,
    "robustforge.types": {"eps": NonNegativeFloat},  # of a Threat; which imports nothing, because --help waits for it
}
