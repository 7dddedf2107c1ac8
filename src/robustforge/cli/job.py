"""Everything that a run is made of, built from its configuration and checked, before anything is trained or written."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from omegaconf import DictConfig

from robustforge.cli.loggers import check_logger
from robustforge.config import tables
from robustforge.config.defenses import build_baseline, build_defense
from robustforge.config.devices import devices_of
from robustforge.config.instantiate import build
from robustforge.config.limits import check_limits
from robustforge.config.outputs import check_names
from robustforge.config.restore import precision_of
from robustforge.config.values import check_run
from robustforge.data.datamodule import ImageData
from robustforge.defenses.base import Defense
from robustforge.defenses.stages import seed_everywhere
from robustforge.evaluation.fitting import check_fits
from robustforge.evaluation.protocol import Protocol
from robustforge.evaluation.rows import rows
from robustforge.float32 import use_full_float32
from robustforge.training.fitting import check_optimizers, check_precision, lightnings_refusals


@dataclass(frozen=True)
class Job:
    """Everything a run is made of, built from its configuration."""

    name: str
    data: ImageData
    defense: Defense
    protocol: Protocol
    device: torch.device
    quiet: bool
    baseline: Defense | None = None


def assemble(cfg: DictConfig) -> Job:
    """Builds the objects and checks that they fit, before anything is trained or written.

    Raises:
        UserError: an impossible combination, said in one sentence.
    """
    check_run(cfg, tables.Run)
    check_names(cfg)
    check_logger(cfg.logger)
    check_precision(str(cfg.trainer.precision))
    check_limits(cfg)
    if cfg.get("threads"):
        torch.set_num_threads(int(cfg.threads))
    seed_everywhere(int(cfg.seed))
    use_full_float32()
    protocol = build(cfg.protocol)
    data = build(cfg.dataset)
    defense, baseline = build_defense(cfg.defense), build_baseline(cfg.defense)
    name = str(cfg.defense_name)
    cells = protocol.cells(name, defense.surfaces(), rows(defense, baseline))  # refuses surfaces that the defense lacks
    check_fits(cells, defense, data)
    check_optimizers((owner, stage) for owner in (*defense.built_on(), defense) for stage in owner.stages())
    device, quiet = device_of(cfg), not cfg.trainer.enable_progress_bar
    with lightnings_refusals():
        build(cfg.trainer)(precision=precision_of(cfg, device), logger=False, plugins=[LightningEnvironment()])
    return Job(name, data, defense, protocol, device, quiet, baseline)


def device_of(cfg: DictConfig) -> torch.device:
    """Where a run trains and attacks.

    Raises:
        UserError: it asks for what this machine has not.
    """
    gpu = devices_of(cfg.trainer).gpu
    return torch.device("cuda", torch.cuda.current_device()) if gpu else torch.device("cpu")
