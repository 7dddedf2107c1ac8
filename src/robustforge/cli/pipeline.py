"""What ``train.py`` does, in order: build, check, train the stages, attack, report."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback, ProgressBar
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from robustforge.cli import pictures
from robustforge.cli.loggers import RunLoggers, check_kind
from robustforge.config.identity import deciding
from robustforge.config.instantiate import build
from robustforge.config.places import settled
from robustforge.config.restore import limits_of, precision_of
from robustforge.config.run_folder import claim, environment
from robustforge.data.datamodule import ImageData
from robustforge.defenses.base import Defense
from robustforge.defenses.stages import seed_everywhere
from robustforge.evaluation.facts import facts
from robustforge.evaluation.fitting import check_fits
from robustforge.evaluation.protocol import Protocol
from robustforge.evaluation.runner import Evaluation
from robustforge.files import plain, write_json, write_text
from robustforge.optional import optional
from robustforge.reporting.html.write import write_run_report
from robustforge.reporting.result import make_result
from robustforge.reporting.tables import markdown_run, render_abstention, render_run
from robustforge.training import distributed
from robustforge.training.fitting import check_precision
from robustforge.training.runner import StageReport, StageRunner
from robustforge.training.store import ArtifactStore
from robustforge.types import UserError

log = logging.getLogger(__name__)
for _library in ("lightning.pytorch", "lightning.fabric"):  # which turn their remarks on hardware on when imported
    logging.getLogger(_library).setLevel(logging.WARNING)


@dataclass(frozen=True)
class Job:
    """Everything a run is made of, built from its configuration."""

    name: str
    data: ImageData
    defense: Defense
    protocol: Protocol
    device: torch.device
    quiet: bool


def assemble(cfg: DictConfig) -> Job:
    """Builds the objects and checks that they fit, before anything is trained or written.

    Raises:
        UserError: an impossible combination, said in one sentence.
    """
    if not isinstance(cfg.seed, int) or not 0 <= cfg.seed < 2**32:
        raise UserError(f"seed is {cfg.seed}: give a whole number between 0 and {2**32 - 1}.")
    check_kind(str(cfg.logger.kind))
    check_precision(str(cfg.trainer.precision))
    seed_everywhere(int(cfg.seed))
    torch.set_float32_matmul_precision("high")
    protocol = build(cfg.protocol)
    data = build(cfg.dataset)
    defense = build(cfg.defense)
    defense.eval()
    name = str(cfg.defense_name)
    cells = protocol.cells(name, defense.surfaces(), defense.systems())  # refuses surfaces that the defense lacks
    check_fits(cells, defense, data)
    cuda = cfg.trainer.accelerator == "gpu" or (cfg.trainer.accelerator == "auto" and torch.cuda.is_available())
    if cuda and not torch.cuda.is_available():
        raise UserError("There is no GPU that PyTorch can use here: give trainer=cpu (device=cpu to evaluate a run).")
    device = torch.device("cuda", torch.cuda.current_device()) if cuda else torch.device("cpu")
    return Job(name, data, defense, protocol, device, not cfg.trainer.enable_progress_bar)


def train(cfg: DictConfig, folder: Path) -> float | None:
    """Runs one job and returns its objective (worst-case accuracy of the defense, percent).

    Args:
        cfg: the composition.
        folder: the run folder.

    Raises:
        UserError: whatever the person at the keyboard can mend.
    """
    started = time.perf_counter()
    cfg = settled(cfg)
    distributed.join()
    job = assemble(cfg)
    store = ArtifactStore(str(cfg.paths.store_dir))
    if distributed.rank() == 0:
        job.data.prepare_data()  # fetched and cached once, for all ranks; and missing data leaves no trace
        job.data.setup()
        claim(folder, cfg, job.data.fingerprint)
    distributed.barrier()
    job.data.setup()
    loggers = _loggers(cfg, folder)
    exit_code = 1
    try:
        reports = _stages(cfg, job, store, loggers)
        objective = _evaluate(cfg, job, folder, reports, loggers, started) if cfg.evaluate else None
        exit_code = 0
    finally:
        loggers.finish(exit_code)
    return objective


def evaluate_run(cfg: DictConfig, folder: Path, overwrite: bool = False) -> float | None:
    """Attacks a run whose stages are in the store, and reports into ``folder``.

    Args:
        cfg: the run's configuration with another attack, budget or protocol.
        folder: for this evaluation's results.
        overwrite: attack again although finished cells are in the store.

    Raises:
        UserError: the store lacks a stage of the run, or whatever :func:`train` raises.
    """
    started = time.perf_counter()
    job = assemble(cfg)
    store = ArtifactStore(str(cfg.paths.store_dir))
    job.data.setup()
    claim(folder, cfg, job.data.fingerprint)
    loggers = _loggers(cfg, folder)
    reports = _stages(cfg, job, store, loggers, only_reuse=True)
    return _evaluate(cfg, job, folder, reports, loggers, started, overwrite)


def restore(cfg: DictConfig) -> Job:
    """A trained run, its stages loaded from the store, frozen, on its device.

    Raises:
        UserError: the store lacks a stage of the run, or whatever :func:`train` raises.
    """
    made = assemble(cfg)
    made.data.setup()
    _stages(cfg, made, ArtifactStore(str(cfg.paths.store_dir)), None, only_reuse=True)
    made.defense.eval().to(made.device)
    return made


def _loggers(cfg: DictConfig, folder: Path) -> RunLoggers:
    config = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(config, dict)
    values = {str(key): value for key, value in config.items()}
    return RunLoggers(values["logger"], folder, f"{cfg.name}/{folder.name}", list(cfg.tags), values)


def _stages(
    cfg: DictConfig, job: Job, store: ArtifactStore, loggers: RunLoggers | None, only_reuse: bool = False
) -> list[StageReport]:
    precision = precision_of(cfg, job.device)
    callbacks = [build(node) for node in cfg.callbacks.values()]
    factory = build(cfg.trainer)

    def trainer(stage: str, epochs: int, extra: Sequence[Callback], clip: float | None) -> pl.Trainer:
        shown = [callback for callback in callbacks if not (job.quiet and isinstance(callback, ProgressBar))]
        made: pl.Trainer = factory(
            max_epochs=epochs,
            precision=precision,
            callbacks=[*shown, *extra],
            logger=loggers.of_stage(stage) if loggers else False,
            gradient_clip_val=clip,
            default_root_dir=str(store.root),
            num_sanity_val_steps=0,
        )
        return made

    limits = limits_of(cfg, precision)
    runner = StageRunner(
        job.data, store, trainer, limits, job.device, job.quiet, only_reuse, str(cfg.store.made_by_other_code)
    )
    return runner.run(job.defense)


def _evaluate(
    cfg: DictConfig,
    job: Job,
    folder: Path,
    reports: list[StageReport],
    loggers: RunLoggers,
    started: float,
    overwrite: bool = False,
) -> float | None:
    stages = {report.name: report.key for report in reports}
    cells = Path(str(cfg.paths.store_dir)) / "cells"
    how = job.device, job.quiet, overwrite, str(cfg.store.made_by_other_code)
    evaluation = Evaluation(job.name, job.defense, job.data, job.protocol, folder, cells, stages, *how)
    records, diagnostics = evaluation.run()
    if distributed.rank() != 0:
        return None
    meta = facts(evaluation, diagnostics) | {
        "name": str(cfg.name),
        "seed": int(cfg.seed),
        "stages": [asdict(report) for report in reports],
        "seconds": time.perf_counter() - started,
        "versions": environment()["packages"],
    }
    objective = report(records, meta, folder, loggers, job)
    if cfg.get("report", True):  # runs of earlier versions do not say
        with optional("report.html"):
            path = write_run_report(folder, deciding(OmegaConf.to_container(cfg, resolve=True)))
            Console().print(f"To read and to share: {path}")
    return objective


def report(records: Path, meta: dict[str, Any], folder: Path, loggers: RunLoggers, job: Job) -> float | None:
    """Writes result.json, result.md, then the figures, prints the table, and sends all of it to the dashboard."""
    result = make_result(records, meta)
    write_text(folder / "result.md", markdown_run(result))
    write_json(folder / "result.json", result)  # before any picture, which may fail
    if job.protocol.pictures:
        found = pictures.save_arrays(job.name, job.defense, job.data, job.protocol, folder, job.device, meta["seed"])
        result["diagnostics"] |= plain(found)
        write_json(folder / "result.json", result)
    figures = pictures.draw(records, result, folder)
    console = Console()
    console.print(render_run(result))
    # where nothing was rejected, the file has the risk's figures for those who want them
    abstained = render_abstention(result) if any(cell["rejected"] for cell in result["cells"]) else None
    if abstained is not None:
        console.print(abstained)
    for name, value in result["diagnostics"].items():
        console.print(f"  {name.replace('_', ' ')}: {value:.4f}")
    console.print(f"Everything is in {folder}")
    loggers.publish(result, figures)
    objective: float | None = result["objective"]
    return objective
