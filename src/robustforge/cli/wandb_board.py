"""Weights & Biases: one run a job, with tables, charts, images and artifacts. Everything here is for rank 0 alone."""

from __future__ import annotations

import logging
import os
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.loggers import WandbLogger

from robustforge.config.logger_settings import AGENT
from robustforge.files import write_text
from robustforge.optional import optional
from robustforge.reporting.boards import CELLS, STAGES, Chart, cell_rows, numbers, stage_rows
from robustforge.reporting.cases import Case
from robustforge.training import distributed

log = logging.getLogger(__name__)
_ID = "wandb_id.txt"
_STEP = "trainer/global_step"


def begin(settings: Mapping[str, Any], folder: Path, told: Mapping[str, Any]) -> WandbLogger:
    """Starts the run of a folder, or continues it; on other ranks than the first a logger that does nothing.

    Under ``wandb agent`` project, team and id are the agent's: what is passed would be dropped, so that the id that
    the folder keeps is the one of the run that there is.

    Args:
        settings: the ``logger`` group.
        folder: of the run.
        told: ``name``, ``group``, ``tags``, ``config`` and ``job_type`` of the run.
    """
    if distributed.rank() != 0:
        return WandbLogger(project=settings["project"])
    import wandb

    agent = AGENT in os.environ
    if agent:
        log.info("wandb agent decides project, team and id of the run: logger.project and logger.entity do not count")
    own: dict[str, Any] = (
        {} if agent else {"project": settings["project"], "entity": settings["entity"], "id": identity(folder)}
    )
    mode: dict[str, Any] = {"mode": "offline"} if settings["offline"] else {}
    run = wandb.init(**told, **own, **mode, dir=str(folder), resume=None if agent else "allow")
    write_text(folder / _ID, run.id)
    run.define_metric(_STEP)
    run.define_metric("*", step_metric=_STEP, step_sync=True)
    return WandbLogger(experiment=run)


def identity(folder: Path) -> str:
    """One id a folder, so that a run that goes on goes on in the dashboard too."""
    return known_identity(folder) or secrets.token_hex(4)


def known_identity(folder: Path) -> str | None:
    """The id of the run that a folder was logged as, or None."""
    path = folder / _ID
    found = path.read_text().strip() if path.exists() else ""
    return found if re.fullmatch(r"[\w-]{4,64}", found) else None


def publish_result(
    run: Any, result: Mapping[str, Any], found: Mapping[str, Chart], cases: Sequence[Case], figures: Iterable[Path]
) -> None:
    """Tables, charts, images and summary of a result.

    Args:
        run: of W&B.
        result: content of ``result.json``.
        found: charts by name.
        cases: images of the table.
        figures: PNG files.
    """
    import wandb

    run.log({"result": wandb.Table(columns=list(CELLS), data=cell_rows(result), allow_mixed_types=True)})
    if result.get("stages"):
        run.log({"stages": wandb.Table(columns=list(STAGES), data=stage_rows(result), allow_mixed_types=True)})
    publish_charts(run, found)
    if cases:
        run.log({"images": _image_table(cases)})
    run.log({f"figures/{path.stem}": wandb.Image(str(path)) for path in figures})
    run.summary.update(numbers(result))


def publish_tables(
    run: Any,
    tables: Mapping[str, tuple[Sequence[str], Sequence[Sequence[Any]]]],
    found: Mapping[str, Chart],
    pictures: Iterable[Path],
    summary: Mapping[str, float],
) -> None:
    """What sums up several runs.

    Args:
        run: of W&B.
        tables: (columns, rows) by name.
        found: charts by name.
        pictures: PNG files.
        summary: numbers of the whole.
    """
    import wandb

    for name, (columns, rows) in tables.items():
        data = [list(row) for row in rows]
        run.log({name: wandb.Table(columns=list(columns), data=data, allow_mixed_types=True)})
    publish_charts(run, found)
    run.log({f"figures/{path.stem}": wandb.Image(str(path)) for path in pictures})
    run.summary.update(dict(summary))


def publish_charts(run: Any, found: Mapping[str, Chart]) -> None:
    """One ``wandb.plot`` a chart."""
    import wandb

    for name, chart in found.items():
        with optional(f"chart {name} of W&B"):
            xs, ys = ([line[part] for line in chart.lines.values()] for part in (0, 1))
            names, title = list(chart.lines), f"{chart.title}: {chart.y}"
            run.log({name: wandb.plot.line_series(xs, ys, keys=names, title=title, xname=chart.x)})


def _image_table(cases: Sequence[Case]) -> Any:
    import wandb

    pictures = list(dict.fromkeys(name for case in cases for name in case.images))
    told = ("label", "before", "answer", "risk", "accepted", "outcome", "group")
    rows = []
    for case in cases:
        shown = [case.images.get(name) for name in pictures]
        images = [None if pixels is None else wandb.Image(_levels(pixels)) for pixels in shown]
        rows.append([case.number, *images, *(getattr(case, name) for name in told)])
    return wandb.Table(columns=["image", *pictures, *told], data=rows, allow_mixed_types=True)


def _levels(pixels: Any) -> Any:
    """[0, 1] as whole numbers of 8 bits, which W&B does not stretch to the range of each image."""
    return np.round(255 * np.clip(np.nan_to_num(pixels), 0, 1)).astype(np.uint8)


def log_files(run: Any, name: str, kind: str, files: Mapping[str, Path], told: Mapping[str, Any]) -> None:
    """One artifact; files that are not there are left out, and an artifact without files is not made.

    Args:
        run: of W&B.
        name: of the artifact; what is no letter, digit, '-', '_' or '.' becomes '_'.
        kind: of the artifact.
        files: by their name in it.
        told: its metadata.
    """
    import wandb

    there = {inside: path for inside, path in files.items() if path.is_file()}
    if not there:
        return
    with optional(f"artifact {name} of W&B"):
        artifact = wandb.Artifact(re.sub(r"[^\w.-]", "_", name)[:120], kind, metadata=dict(told))
        for inside, path in there.items():
            artifact.add_file(str(path), name=inside, policy="immutable", skip_cache=True)
        run.log_artifact(artifact)


def replay(run: Any, rows: Iterable[Mapping[str, str]]) -> None:
    """Logs the curves of a stage that another run has trained."""
    for row in rows:
        values = {name: float(value) for name, value in row.items() if value and name != "step"}
        run.log(values | {_STEP: int(float(row.get("step") or 0))})
