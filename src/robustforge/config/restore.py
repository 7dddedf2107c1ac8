"""A trained run from its configuration: its defense with all stages loaded from the store; nothing is trained."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from robustforge.accel import fast_bf16
from robustforge.config.instantiate import build
from robustforge.data.datamodule import ImageData
from robustforge.defenses.base import Defense
from robustforge.training import distributed
from robustforge.training.runner import StageRunner
from robustforge.training.store import ArtifactStore
from robustforge.types import UserError


def precision_of(cfg: DictConfig, device: torch.device) -> str:
    """Lightning's word for the precision in which a run trains on ``device``."""
    precision = str(cfg.trainer.precision)
    if precision != "auto":
        return precision
    return "bf16-mixed" if fast_bf16(device) else "32-true"


def processes_of(cfg: DictConfig) -> int:
    """In how many processes a run was trained, by its ``config.yaml``."""
    devices = cfg.trainer.get("devices", 1)
    count = int(devices) if isinstance(devices, int) else len(devices)
    return max(1, count) * int(cfg.trainer.get("num_nodes", 1))


def limits_of(cfg: DictConfig, precision: str, processes: int | None = None) -> dict[str, Any]:
    """The trainer settings that change what a stage produces; part of every key."""
    limits = {key: cfg.trainer[key] for key in ("limit_train_batches", "fast_dev_run")}
    return limits | {"precision": precision, "processes": processes or distributed.world_size()}


def restored(cfg: DictConfig, device: torch.device) -> tuple[Defense, ImageData]:
    """The defense of a run, frozen, on ``device``, and its data.

    The machine that trained it need not be like this one: what it may have trained in is tried in turn.

    Args:
        cfg: of the run, resolved and trusted.
        device: where the defense goes.

    Raises:
        UserError: the store is not there or lacks a stage of the run, or its data is missing.
    """
    root = Path(str(cfg.paths.store_dir))
    if not root.is_dir():
        raise UserError(f"The run's store {root} is not there: start where the run was started, or move the store too.")
    data: ImageData = build(cfg.dataset)
    defense: Defense = build(cfg.defense)
    defense.eval()
    data.setup()
    problem: UserError | None = None
    for limits in _candidates(cfg, device):
        runner = StageRunner(data, ArtifactStore(root), _no_trainer, limits, device, quiet=True, only_reuse=True)
        try:
            runner.run(defense)
        except UserError as error:
            problem = problem or error
            continue
        defense.eval().requires_grad_(False)
        return defense.to(device), data
    assert problem is not None
    raise problem


def _candidates(cfg: DictConfig, device: torch.device) -> Iterator[dict[str, Any]]:
    processes = processes_of(cfg)
    likely = precision_of(cfg, device)
    others = [word for word in ("32-true", "bf16-mixed") if word != likely] if cfg.trainer.precision == "auto" else []
    for precision in (likely, *others):
        yield limits_of(cfg, precision, processes)


def _no_trainer(*_: Any) -> Any:
    raise RuntimeError("A run that is loaded is not trained.")
