"""A trained run attacked again: whole, in parts on several machines, or put together from such parts."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace
from pathlib import Path

from omegaconf import DictConfig

from robustforge.cli.attacking import attack_and_report, evaluation_of
from robustforge.cli.job import assemble
from robustforge.cli.pipeline import loggers_of
from robustforge.cli.robustbench import RobustBench
from robustforge.config.devices import devices_of
from robustforge.config.restore import load_stages
from robustforge.config.run_folder import claim
from robustforge.evaluation.judged import judged_on
from robustforge.evaluation.runner import Evaluation
from robustforge.evaluation.share import Share
from robustforge.leftovers import remove_leftovers
from robustforge.training import distributed
from robustforge.types import UserError


@dataclass(frozen=True)
class Asked:
    """What else is asked of an evaluation.

    Attributes:
        overwrite: attack again although finished cells are in the store.
        export: another form that the result is written in too.
        share: attack this part of the images only, and write no result.
        merge: attack nothing: put together what the parts have left.

    Raises:
        UserError: wishes that exclude each other.
    """

    overwrite: bool = False
    export: RobustBench | None = None
    share: Share | None = None
    merge: bool = False

    def __post_init__(self) -> None:
        if self.share and (self.merge or self.overwrite or self.export):
            raise UserError(
                "shard attacks a part, and merge, overwrite and export concern the whole: give one of them."
            )
        if self.merge and self.overwrite:
            raise UserError("merge keeps what was attacked, and overwrite attacks again: give one of them.")


def evaluate_run(
    cfg: DictConfig, folder: Path, trained_by: int = 1, asked: Asked | None = None, trained: Path | None = None
) -> float | None:
    """Attacks a run whose stages are in the store, and reports into ``folder``.

    Args:
        cfg: the run's configuration with another attack, budget or protocol.
        folder: for this evaluation's results.
        trained_by: number of processes that trained the run.
        asked: what else is asked.
        trained: folder of the run, which dashboards are told.

    Returns:
        The objective; None for a part, and on other ranks than the first.

    Raises:
        UserError: the store lacks a stage of the run, images that are to be put together are not attacked yet, the
            other form does not admit the evaluation, or whatever :func:`robustforge.cli.pipeline.train` raises.
    """
    started, asked = time.perf_counter(), asked or Asked()
    distributed.join(devices_of(cfg.trainer).gpu)
    main = distributed.rank() == 0
    if not main:
        logging.getLogger().setLevel(logging.ERROR)  # rank 0 says it for all
    job = assemble(cfg)
    job.data.setup()
    if asked.export is not None:
        if cfg.split != "test":
            raise UserError("export=robustbench is of the test images: leave split out.")
        asked.export.check(job.name, job.defense, job.data, job.protocol)
    if main:
        remove_leftovers(Path(str(cfg.paths.store_dir)))
        remove_leftovers(folder)
    reports = load_stages(cfg, job.defense, job.data, job.device, trained_by)
    trained_on = job.data.fingerprint
    job = replace(job, data=judged_on(job.data, str(cfg.split)))
    evaluation = evaluation_of(cfg, job, folder, reports)
    if asked.share is not None:
        _attack_share(evaluation, asked.share)
        return None
    if asked.merge:
        _refuse_gaps(evaluation)
    if main:
        claim(folder, cfg, trained_on)
    distributed.barrier()
    loggers, exit_code = loggers_of(cfg, folder, trained), 1
    try:
        how = asked.overwrite, asked.export, False
        objective = attack_and_report(cfg, job, folder, reports, loggers, started, *how)
        exit_code = 0
    finally:
        loggers.finish(exit_code)
    return objective


def _attack_share(evaluation: Evaluation, share: Share) -> None:
    count = sum(distributed.gathered([evaluation.run_share(share)]))
    if distributed.rank() == 0:
        print(
            f"Part {share.number} of {share.count} is done ({count} images attacked). When all parts are, the same "
            f"command with merge=true in place of shard={share.number}/{share.count} makes the result."
        )


def _refuse_gaps(evaluation: Evaluation) -> None:
    missing = evaluation.missing()
    if missing:
        first = next(iter(missing))
        raise UserError(
            f"{sum(missing.values())} images in {len(missing)} cells are not attacked yet (the first: {first}): run "
            "the parts that have not finished, or leave merge out, which attacks the rest here."
        )
