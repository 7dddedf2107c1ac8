"""What ``train.py`` does, in order: build, check, train the stages, attack, report."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import lightning.pytorch as pl
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.callbacks import Callback, ProgressBar
from omegaconf import DictConfig, OmegaConf

from robustforge.cli.attacking import attack_and_report
from robustforge.cli.finished import say_where
from robustforge.cli.job import Job, assemble
from robustforge.cli.loggers import RunLoggers, Told
from robustforge.cli.wandb_board import known_identity
from robustforge.config.devices import check_launch, devices_of
from robustforge.config.given import keep_given
from robustforge.config.instantiate import build
from robustforge.config.limits import limits_of, with_threads
from robustforge.config.outputs import outside_store
from robustforge.config.places import settled
from robustforge.config.restore import precision_of
from robustforge.config.run_folder import claim
from robustforge.config.store_content import STAGES
from robustforge.evaluation.judged import judged_on
from robustforge.files import write_json
from robustforge.leftovers import remove_leftovers
from robustforge.training import distributed
from robustforge.training.checkpoints import LocalCheckpoints
from robustforge.training.runner import StageReport, StageRunner
from robustforge.training.store import ArtifactStore

log = logging.getLogger(__name__)
for _library in ("lightning.pytorch", "lightning.fabric"):  # which turn their remarks on hardware on when imported
    logging.getLogger(_library).setLevel(logging.WARNING)


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
    loggers = loggers_of(cfg, folder)
    exit_code = 1
    try:
        reports = _stages(cfg, job, store, loggers)
        judged = replace(job, data=judged_on(job.data, str(cfg.split)))
        objective = attack_and_report(cfg, judged, folder, reports, loggers, started) if cfg.evaluate else None
        if not cfg.evaluate:
            loggers.keep(store, reports)
        if cfg.evaluate and distributed.rank() == 0:
            say_where(folder)
        exit_code = 0
    finally:
        loggers.finish(exit_code)
    return objective


def loggers_of(cfg: DictConfig, folder: Path, trained: Path | None = None) -> RunLoggers:
    """Where a run logs to, by its configuration.

    Args:
        cfg: of the run, resolved.
        folder: of the run.
        trained: the run that is attacked again, which an evaluation names.
    """
    config = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(config, dict)
    values = {str(key): value for key, value in config.items()}
    told = Told(f"{cfg.name}/{folder.name}", list(cfg.tags), values, group=str(cfg.name))
    if trained is not None:
        of = {"id": known_identity(trained), "name": f"{cfg.name}/{trained.name}", "folder": str(trained.absolute())}
        name = f"{of['name']}/{folder.name.removeprefix('.').removesuffix('.new')}"
        told = replace(told, name=name, config={**values, "trained_run": of}, job_type="evaluate")
    return RunLoggers(values["logger"], folder, told)


def _stages(cfg: DictConfig, job: Job, store: ArtifactStore, loggers: RunLoggers) -> list[StageReport]:
    precision = precision_of(cfg, job.device)
    callbacks = [build(node) for node in cfg.callbacks.values() if node is not None]
    factory = build(cfg.trainer)

    def trainer(stage: str, epochs: int, extra: Sequence[Callback], clip: float | None) -> pl.Trainer:
        """Lightning's trainer of one stage, with the run's callbacks and the stage's own."""
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

    runner = StageRunner(
        job.data,
        store,
        trainer,
        limits_of(cfg, precision),
        job.device,
        job.quiet,
        made_by_other_code=str(cfg.store.made_by_other_code),
        resume_every=float(cfg.store.resume_every),
        reused=loggers.reused,
    )
    reports = runner.run(job.defense)
    if distributed.rank() == 0:  # for scripts/store.py, which keeps what a run folder names
        write_json(loggers.folder / STAGES, {"stages": reports})
    return reports
