"""Where metrics go: CSV always, W&B or TensorBoard when asked for; and how a run ends there."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger

from robustforge.cli import tensorboard_board, wandb_board
from robustforge.cli.dashboards import check_wandb
from robustforge.config.isolated import GROUP
from robustforge.config.logger_settings import check_settings
from robustforge.files import read_arrays, short_name, write_text
from robustforge.manifest import MANIFEST
from robustforge.optional import optional
from robustforge.records.table import read_records
from robustforge.reporting.boards import CELLS, Chart, cell_rows, chart_rows, charts
from robustforge.reporting.cases import Case, cases_of, threshold
from robustforge.reporting.text import csv_text
from robustforge.training import distributed
from robustforge.training.curves import CURVES, read_curves
from robustforge.training.runner import StageReport
from robustforge.training.store import ArtifactStore

IMAGES = 12  # of the table of images, unless logger.images says otherwise
Table = tuple[Sequence[str], Sequence[Sequence[Any]]]  # (columns, rows)
JobType = Literal["train", "evaluate", "reproduce", "sweep"]


@dataclass(frozen=True)
class Told:
    """What dashboards are told about a run.

    Attributes:
        name: of the run, which goes by its folder and not by the logger.
        tags: to find it by.
        config: its resolved configuration, as plain values.
        job_type: what kind of run it is.
        group: of the runs that belong together, unless ``logger.group`` names one.
    """

    name: str
    tags: Sequence[str] = ()
    config: Mapping[str, Any] | None = None
    job_type: JobType = "train"
    group: str | None = None


class RunLoggers:
    """The loggers of one run.

    Args:
        settings: the ``logger`` group: ``kind``, ``images`` and, for W&B, ``project entity group offline artifacts``.
        folder: the run folder.
        told: what is said about the run.

    Raises:
        UserError: unknown kind or setting.
    """

    def __init__(self, settings: Mapping[str, Any], folder: Path, told: Told) -> None:
        check_settings(settings)
        self.kind, self.folder, self.told = settings["kind"], folder, told
        self.images = int(settings.get("images", IMAGES))
        self.artifacts = tuple(settings.get("artifacts") or ())
        self.wandb: WandbLogger | None = None
        if self.kind == "wandb":
            group = settings["group"] or os.environ.get(GROUP) or told.group
            group = None if group is None else short_name(group, 110)
            shown = {"name": short_name(told.name, 110), "tags": list(told.tags), "config": dict(told.config or {})}
            self.wandb = wandb_board.begin(settings, folder, {**shown, "group": group, "job_type": told.job_type})

    def of_stage(self, stage: str) -> list[Logger]:
        """Loggers for the Trainer of one stage."""
        loggers: list[Logger] = [CSVLogger(str(self.folder / "metrics"), name=stage)]
        if self.wandb is not None:
            loggers.append(self.wandb)
        if self.kind == "tensorboard":
            loggers.append(TensorBoardLogger(str(self.folder / "tensorboard"), name=stage))
        return loggers

    def reused(self, stage: str, product: Path) -> None:
        """Shows how a stage was trained that is taken from the store; once a run folder, on rank 0."""
        place = self.folder / "metrics" / stage
        if distributed.rank() != 0 or any(place.glob("version_*")) or not (product / CURVES).is_file():
            return
        with optional(f"curves of {stage}"):
            rows = read_curves(product / CURVES)
            if self.wandb is not None:
                wandb_board.replay(self.wandb.experiment, rows)
            elif self.kind == "tensorboard":
                tensorboard_board.replay(self.folder, stage, rows)
            write_text(place / "version_0" / "metrics.csv", (product / CURVES).read_text(encoding="utf-8"))

    def publish(self, result: Mapping[str, Any], figures: Sequence[Path]) -> None:
        """Writes the table and the curves as CSV, and sends them with numbers, images and figures to the dashboard.

        On rank 0 only.

        Args:
            result: content of ``result.json``.
            figures: PNG files of the run.
        """
        if distributed.rank() != 0:
            return
        write_text(self.folder / "cells.csv", csv_text(CELLS, cell_rows(result)))
        found: dict[str, Chart] = {}
        cases: list[Case] = []
        with optional("charts of the dashboard"):
            found = charts(result, read_records(self.folder))
        write_text(self.folder / "charts.csv", csv_text(("chart", "line", "x", "y"), chart_rows(found)))
        if self.kind != "csv":
            with optional("images of the dashboard"):
                cases = self._cases(result)
        if self.wandb is not None:
            wandb_board.publish_result(self.wandb.experiment, result, found, cases, figures)
        elif self.kind == "tensorboard":
            tensorboard_board.publish_result(self.folder, result, found, cases, figures)

    def publish_tables(
        self,
        tables: Mapping[str, Table],
        found: Mapping[str, Chart],
        files: Sequence[Path] = (),
        summary: Mapping[str, float] | None = None,
    ) -> None:
        """Sends what sums up several runs, on rank 0 only.

        Args:
            tables: (columns, rows) by name.
            found: charts by name, which go to ``charts.csv`` too.
            files: of the artifact; PNG files are shown as well.
            summary: numbers of the whole.
        """
        if distributed.rank() != 0:
            return
        write_text(self.folder / "charts.csv", csv_text(("chart", "line", "x", "y"), chart_rows(found)))
        pictures = [path for path in files if path.suffix == ".png"]
        if self.wandb is not None:
            wandb_board.publish_tables(self.wandb.experiment, tables, found, pictures, summary or {})
            content = {path.name: path for path in files} if "result" in self.artifacts else {}
            told = {"run": self.told.name}
            wandb_board.log_files(self.wandb.experiment, f"summary-{self.wandb.experiment.id}", "result", content, told)
        elif self.kind == "tensorboard":
            tensorboard_board.publish_tables(self.folder, tables, found, pictures, summary or {})

    def _cases(self, result: Mapping[str, Any]) -> list[Case]:
        arrays = read_arrays(self.folder / "gallery.npz")
        return [] if not arrays else cases_of(arrays, threshold(result, read_records(self.folder)), self.images)

    def keep(self, store: ArtifactStore, reports: Iterable[StageReport]) -> None:
        """Sends W&B what a finished run leaves: weights and adversarial sets with their manifests, records, report.

        Args:
            store: that holds the products.
            reports: on the stages that belong to the run; none for an evaluation, whose training run has them.
        """
        if self.wandb is None or distributed.rank() != 0:
            return
        run = self.wandb.experiment
        for report in reports:
            product = store.folder(report.name, report.key)
            names = {"weights": "weights.safetensors", "adversarial_set": "images.npy"}
            for kind, name in names.items():
                if kind in self.artifacts and (product / name).is_file():
                    files = {part: product / part for part in (name, MANIFEST)}
                    told = {"stage": report.name, "key": report.key, "reused": report.reused}
                    wandb_board.log_files(run, product.name, kind, files, told)
        if "result" in self.artifacts and (self.folder / "result.json").is_file():
            names_of_result = ("records.parquet", "result.json", "report.html", "cells.csv", "environment.json")
            files = {name: self.folder / name for name in names_of_result}
            wandb_board.log_files(run, f"result-{run.id}", "result", files, {"run": self.told.name})

    def finish(self, exit_code: int) -> None:
        """Ends the run in the dashboard with its true exit status."""
        if self.wandb is not None and distributed.rank() == 0:
            import wandb

            wandb.finish(exit_code=exit_code)


def check_logger(settings: Mapping[str, Any]) -> None:
    """Raises UserError unless there is such a logger with such settings, and it can be reached."""
    check_settings(settings)
    if settings["kind"] == "wandb" and distributed.rank() == 0:
        check_wandb(settings)
