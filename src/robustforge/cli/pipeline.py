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
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.callbacks import Callback, ProgressBar
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from robustforge.cli import pictures
from robustforge.cli.loggers import RunLoggers, check_logger
from robustforge.cli.robustbench import RobustBench
from robustforge.config import tables
from robustforge.config.defenses import build_baseline, build_defense
from robustforge.config.devices import check_launch, devices_of
from robustforge.config.exported import load_exported
from robustforge.config.given import keep_given
from robustforge.config.identity import deciding
from robustforge.config.instantiate import build
from robustforge.config.limits import check_limits, limits_of, with_threads
from robustforge.config.outputs import check_names, outside_store
from robustforge.config.places import settled
from robustforge.config.restore import precision_of
from robustforge.config.run_folder import claim, environment
from robustforge.config.values import check_run
from robustforge.data.datamodule import ImageData
from robustforge.defenses.base import Defense
from robustforge.defenses.stages import seed_everywhere
from robustforge.evaluation.facts import facts
from robustforge.evaluation.fitting import check_fits
from robustforge.evaluation.protocol import Protocol
from robustforge.evaluation.rows import rows
from robustforge.evaluation.runner import Evaluation
from robustforge.files import plain, write_json, write_text
from robustforge.leftovers import remove_leftovers
from robustforge.optional import optional
from robustforge.reporting.html.write import write_run_report
from robustforge.reporting.result import make_result, read_result
from robustforge.reporting.tables import markdown_run, render_abstention, render_run
from robustforge.training import distributed
from robustforge.training.checkpoints import LocalCheckpoints
from robustforge.training.fitting import check_optimizers, check_precision, lightnings_refusals
from robustforge.training.runner import StageReport, StageRunner
from robustforge.training.store import ArtifactStore

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
    torch.set_float32_matmul_precision("high")
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


def train(cfg: DictConfig, folder: Path) -> float | None:
    """Runs one job and returns its objective (worst-case accuracy of the defense, percent).

    Args:
        cfg: the composition.
        folder: the run folder.

    Raises:
        UserError: whatever the person at the keyboard can mend.
    """
    started = time.perf_counter()
    cfg = with_threads(settled(cfg), folder)
    devices = devices_of(cfg.trainer)
    check_launch(devices)
    cfg.trainer.devices = list(devices.picked) or devices.count  # what auto and -1 mean here, for who reads the run
    distributed.join(devices.gpu, devices.picked)
    if distributed.rank() != 0:
        logging.getLogger().setLevel(logging.ERROR)  # rank 0 says it for all
    cfg = keep_given(cfg, cfg.get("trust") or ())
    job = assemble(cfg)
    outside_store(folder, "hydra.run.dir", Path(str(cfg.paths.store_dir)))
    if distributed.rank() == 0:
        job.data.prepare_data()  # fetched and cached once, for all ranks; and missing data leaves no trace
        job.data.setup()
    store = ArtifactStore(str(cfg.paths.store_dir))
    if distributed.rank() == 0:
        remove_leftovers(store.root)
        remove_leftovers(folder)
        claim(folder, cfg, job.data.fingerprint)
    distributed.barrier()
    job.data.setup()
    loggers = _loggers(cfg, folder)
    exit_code = 1
    try:
        reports = _stages(cfg, job, store, loggers)
        objective = _evaluate(cfg, job, folder, reports, loggers, started) if cfg.evaluate else None
        if cfg.evaluate and distributed.rank() == 0:
            print(f"Everything is in {folder}")
        exit_code = 0
    finally:
        loggers.finish(exit_code)
    return objective


def evaluate_run(
    cfg: DictConfig, folder: Path, trained_by: int = 1, overwrite: bool = False, export: RobustBench | None = None
) -> float | None:
    """Attacks a run whose stages are in the store, and reports into ``folder``.

    Args:
        cfg: the run's configuration with another attack, budget or protocol.
        folder: for this evaluation's results.
        trained_by: number of processes that trained the run.
        overwrite: attack again although finished cells are in the store.
        export: another form that the result is written in too.

    Raises:
        UserError: the store lacks a stage of the run, the other form does not admit the evaluation, or whatever
            :func:`train` raises.
    """
    started = time.perf_counter()
    job = assemble(cfg)
    store = ArtifactStore(str(cfg.paths.store_dir))
    remove_leftovers(store.root)
    remove_leftovers(folder)
    job.data.setup()
    if export is not None:
        export.check(job.name, job.defense, job.data, job.protocol)
    claim(folder, cfg, job.data.fingerprint)
    loggers = _loggers(cfg, folder)
    reports = _stages(cfg, job, store, loggers, trained_by)
    return _evaluate(cfg, job, folder, reports, loggers, started, overwrite, export)


def _loggers(cfg: DictConfig, folder: Path) -> RunLoggers:
    config = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(config, dict)
    values = {str(key): value for key, value in config.items()}
    return RunLoggers(values["logger"], folder, f"{cfg.name}/{folder.name}", list(cfg.tags), values)


def _stages(
    cfg: DictConfig, job: Job, store: ArtifactStore, loggers: RunLoggers, trained_by: int | None = None
) -> list[StageReport]:
    """Trains the stages, or, of a run that so many processes trained, only loads them."""
    if cfg.paths.get("exported"):
        load_exported(job.defense, Path(str(cfg.paths.exported)), job.data.fingerprint)
        return []
    precision = precision_of(cfg, job.device)
    callbacks = [build(node) for node in cfg.callbacks.values() if node is not None]
    factory = build(cfg.trainer)

    def trainer(stage: str, epochs: int, extra: Sequence[Callback], clip: float | None) -> pl.Trainer:
        shown = [callback for callback in callbacks if not (job.quiet and isinstance(callback, ProgressBar))]
        made: pl.Trainer = factory(
            max_epochs=epochs,
            precision=precision,
            callbacks=[*shown, *extra],
            logger=loggers.of_stage(stage),
            gradient_clip_val=clip,
            default_root_dir=str(store.root),
            # ranks are told by variables; Lightning's own for SLURM would save and requeue by itself
            plugins=[LightningEnvironment(), LocalCheckpoints()],
            num_sanity_val_steps=0,
        )
        return made

    limits, only_reuse = limits_of(cfg, precision, trained_by), trained_by is not None
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
    export: RobustBench | None = None,
) -> float | None:
    stages = {report.name: report.key for report in reports}
    cells = Path(str(cfg.paths.store_dir)) / "cells"
    how = job.device, job.quiet, overwrite, str(cfg.store.made_by_other_code)
    evaluation = Evaluation(job.name, job.defense, job.data, job.protocol, folder, cells, stages, *how, job.baseline)
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
    if export is not None:
        export.write(evaluation, read_result(folder), folder)
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
    loggers.publish(result, figures)
    objective: float | None = result["objective"]
    return objective
