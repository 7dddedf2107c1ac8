"""A trained run from its configuration: its defense with all stages loaded from the store; nothing is trained."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from robustforge.accel import fast_bf16
from robustforge.config.defenses import build_defense
from robustforge.config.exported import exported_defense, is_exported, load_exported
from robustforge.config.instantiate import build
from robustforge.config.limits import limits_of
from robustforge.config.places import move_to
from robustforge.config.trust import load_trusted
from robustforge.data.datamodule import ImageData
from robustforge.defenses.base import Defense
from robustforge.training.runner import StageReport, StageRunner
from robustforge.training.store import ArtifactStore
from robustforge.types import UserError


def precision_of(cfg: DictConfig, device: torch.device) -> str:
    """Lightning's word for the precision in which a run trains on ``device``."""
    precision = str(cfg.trainer.precision)
    if precision != "auto":
        return precision
    return "bf16-mixed" if fast_bf16(device) else "32-true"


def load_restored(
    folder: Path, trust: str | Sequence[str] = (), device: torch.device | None = None
) -> tuple[DictConfig, Defense, ImageData]:
    """A run folder of anybody's: its configuration, checked, its defense and its data.

    Args:
        folder: of the run, which may have been moved together with its store; or an exported one, whose data is then
            not set up.
        trust: see :func:`robustforge.config.trust.check_trusted`.
        device: where the defense goes, the CPU by default.

    Raises:
        UserError: it is no run folder, not to be trusted, or its store or data is missing.
    """
    cfg, place = load_trusted(folder, trust), device or torch.device("cpu")
    if is_exported(folder):
        return cfg, exported_defense(cfg, folder, place), build(cfg.dataset)
    move_to(cfg, folder)
    return cfg, *restored(cfg, place)


def processes_of(cfg: DictConfig) -> int:
    """In how many processes a run was trained, by its ``config.yaml``."""
    devices = cfg.trainer.get("devices", 1)
    count = int(devices) if isinstance(devices, int) else len(devices)
    return max(1, count) * int(cfg.trainer.get("num_nodes", 1))


def restored(cfg: DictConfig, device: torch.device, processes: int | None = None) -> tuple[Defense, ImageData]:
    """The defense of a run, frozen, on ``device``, and its data.

    Args:
        cfg: of the run, resolved and trusted.
        device: where the defense goes.
        processes: that trained it; None for what ``cfg`` says.

    Raises:
        UserError: the store is not there or lacks a stage of the run, or its data is missing.
    """
    root, exported = Path(str(cfg.paths.store_dir)), cfg.paths.get("exported")
    if not exported and not root.is_dir():
        raise UserError(f"The run's store {root} is not there: start where the run was started, or move the store too.")
    data: ImageData = build(cfg.dataset)
    defense = build_defense(cfg.defense)
    data.setup()
    load_stages(cfg, defense, data, device, processes or processes_of(cfg))
    return defense.eval().requires_grad_(False).to(device), data


def load_stages(
    cfg: DictConfig, defense: Defense, data: ImageData, device: torch.device, processes: int
) -> list[StageReport]:
    """Loads what a run trained into its defense, from its store or from its exported folder.

    The machine that trained it need not be like this one: what it may have trained in is tried in turn.

    Args:
        cfg: of the run.
        defense: as its configuration builds it.
        data: set up.
        device: where products are compared.
        processes: that trained it.

    Returns:
        A report a stage; none of an exported run.

    Raises:
        UserError: the store lacks a stage of the run.
    """
    if cfg.paths.get("exported"):
        load_exported(defense, Path(str(cfg.paths.exported)), data.fingerprint)
        return []
    store, problem = ArtifactStore(str(cfg.paths.store_dir)), None
    for limits in _candidates(cfg, device, processes):
        runner = StageRunner(data, store, _no_trainer, limits, device, quiet=True, only_reuse=True)
        try:
            return runner.run(defense)
        except UserError as error:
            problem = problem or error
    assert problem is not None
    raise problem


def _candidates(cfg: DictConfig, device: torch.device, processes: int) -> Iterator[dict[str, Any]]:
    likely = precision_of(cfg, device)
    others = [word for word in ("32-true", "bf16-mixed") if word != likely] if cfg.trainer.precision == "auto" else []
    for precision in (likely, *others):
        yield limits_of(cfg, precision, processes)


def _no_trainer(*_: Any) -> Any:
    raise RuntimeError("A run that is loaded is not trained.")
