"""The second half of a run: the trained defense attacked, the table, figures and report of it."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from robustforge.cli import pictures
from robustforge.cli.job import Job
from robustforge.cli.loggers import IMAGES, RunLoggers
from robustforge.cli.robustbench import RobustBench
from robustforge.config.dependence import digest_of
from robustforge.config.identity import deciding
from robustforge.config.run_folder import environment, machine
from robustforge.evaluation.facts import facts
from robustforge.evaluation.runner import Evaluation
from robustforge.files import plain, write_json, write_text
from robustforge.optional import optional
from robustforge.reporting.headline import closing
from robustforge.reporting.html.write import write_run_report
from robustforge.reporting.result import make_result, read_result
from robustforge.reporting.tables import markdown_run, render_abstention, render_run, terminal
from robustforge.training import distributed
from robustforge.training.runner import StageReport
from robustforge.training.store import ArtifactStore


def evaluation_of(
    cfg: DictConfig, job: Job, folder: Path, reports: list[StageReport], overwrite: bool = False
) -> Evaluation:
    """The evaluation of a trained job, whose records go to ``folder``."""
    stages = {report.name: report.key for report in reports}
    cells = Path(str(cfg.paths.store_dir)) / "cells"
    how = job.device, job.quiet, overwrite, str(cfg.store.made_by_other_code)
    return Evaluation(job.name, job.defense, job.data, job.protocol, folder, cells, stages, *how, job.baseline)


def attack_and_report(
    cfg: DictConfig,
    job: Job,
    folder: Path,
    reports: list[StageReport],
    loggers: RunLoggers,
    started: float,
    overwrite: bool = False,
    export: RobustBench | None = None,
    trained_here: bool = True,
) -> float | None:
    """Attacks a trained job and returns its objective; None on other ranks than the first.

    Args:
        cfg: its configuration.
        job: with all stages in place.
        folder: for all that is written.
        reports: what happened to its stages.
        loggers: where its numbers are sent.
        started: on the performance counter.
        overwrite: attack again although finished cells are in the store.
        export: another form that the result is written in too.
        trained_here: whether its stages belong to this run, and not to another one that is attacked again.
    """
    evaluation = evaluation_of(cfg, job, folder, reports, overwrite)
    records, diagnostics = evaluation.run()
    if distributed.rank() != 0:
        return None
    meta = facts(evaluation, diagnostics) | {
        "depends": digest_of(cfg),
        "split": str(cfg.split),
        "machine": machine(job.device, cfg.get("threads")),
        "name": str(cfg.name),
        "seed": int(cfg.seed),
        "stages": [asdict(report) for report in reports],
        "seconds": time.perf_counter() - started,
        "versions": environment()["packages"],
    }
    result, figures = report(records, meta, folder, job, loggers.images)
    if export is not None:
        export.write(evaluation, read_result(folder), folder)
    if cfg.get("report", True):  # runs of earlier versions do not say
        with optional("report.html"):
            write_run_report(folder, deciding(OmegaConf.to_container(cfg, resolve=True)))
    loggers.publish(result, figures)
    loggers.keep(ArtifactStore(str(cfg.paths.store_dir)), reports if trained_here else ())
    objective: float | None = result["objective"]
    return objective


def report(
    records: Path, meta: dict[str, Any], folder: Path, job: Job, images: int = IMAGES
) -> tuple[dict[str, Any], list[Path]]:
    """Writes result.json, result.md, then the figures, and prints the table; the result, and files of the figures."""
    result = make_result(records, meta)
    write_text(folder / "result.md", markdown_run(result))
    write_json(folder / "result.json", result)  # before any picture, which may fail
    if job.protocol.pictures:
        found = pictures.save_arrays(
            job.name, job.defense, job.data, job.protocol, folder, job.device, meta["seed"], images
        )
        result["diagnostics"] |= plain(found)
        write_json(folder / "result.json", result)
    figures = pictures.draw(records, result, folder)
    console = terminal()
    console.print(render_run(result))
    # where nothing was rejected, the file has the risk's figures for those who want them
    abstained = render_abstention(result) if any(cell["rejected"] for cell in result["cells"]) else None
    if abstained is not None:
        console.print(abstained)
    for name, value in result["diagnostics"].items():
        console.print(f"  {name.replace('_', ' ')}: {value:.4f}")
    if words := closing(result):
        console.print(f"\n{words}", markup=False, highlight=False)
    return result, figures
