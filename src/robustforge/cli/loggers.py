"""Where metrics go: CSV always, W&B or TensorBoard when asked for; and how a run ends there."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib.image
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger

from robustforge.cli.dashboards import check_wandb
from robustforge.config.logger_settings import check_settings
from robustforge.files import write_text
from robustforge.training import distributed


class RunLoggers:
    """The loggers of one run.

    Args:
        settings: the ``logger`` group: ``kind`` and, for W&B, ``project entity group offline``.
        folder: the run folder.
        name: of the run, from its overrides.
        tags: for the dashboard.
        config: the resolved configuration, as plain values.

    Raises:
        UserError: unknown kind or setting.
    """

    def __init__(
        self, settings: Mapping[str, Any], folder: Path, name: str, tags: list[str], config: dict[str, Any]
    ) -> None:
        check_settings(settings)
        self.kind, self.folder = settings["kind"], folder
        self.wandb: WandbLogger | None = None
        if self.kind == "wandb":
            self.wandb = WandbLogger(
                project=settings["project"],
                entity=settings["entity"],
                group=settings["group"],
                tags=tags,
                name=name,
                save_dir=str(folder),
                offline=settings["offline"],
                config=config,
                id=self._wandb_id(),
                resume="allow",
            )

    def _wandb_id(self) -> str:
        """One id a run folder, so that a continued run continues in the dashboard too."""
        path = self.folder / "wandb_id.txt"
        if distributed.rank() == 0 and not (path.exists() and re.fullmatch(r"[0-9a-f]{8}\s*", path.read_text())):
            write_text(path, secrets.token_hex(4))
        distributed.barrier()
        return path.read_text().strip()

    def of_stage(self, stage: str) -> list[Logger]:
        """Loggers for the Trainer of one stage."""
        loggers: list[Logger] = [CSVLogger(str(self.folder / "metrics"), name=stage)]
        if self.wandb is not None:
            loggers.append(self.wandb)
        if self.kind == "tensorboard":
            loggers.append(TensorBoardLogger(str(self.folder / "tensorboard"), name=stage))
        return loggers

    def publish(self, result: Mapping[str, Any], figures: list[Path]) -> None:
        """Sends the result's numbers, its table and the figures to the dashboard; rank 0 only."""
        if distributed.rank() != 0:
            return
        numbers = {_metric_name(cell): cell["accuracy"] for cell in (*result["cells"], *result["worst_case"])}
        numbers |= {f"diagnostics/{key}": value for key, value in result["diagnostics"].items()}
        if result["objective"] is not None:
            numbers["objective"] = result["objective"]
        if self.wandb is not None:
            import wandb

            columns: list[str | int] = ["system", "attack", "surface", "norm", "eps", "n", "accuracy"]
            rows = [[cell[column] for column in columns] for cell in (*result["cells"], *result["worst_case"])]
            run = self.wandb.experiment
            run.log({"result": wandb.Table(columns=columns, data=rows)})
            run.log({f"figures/{path.stem}": wandb.Image(str(path)) for path in figures})
            run.summary.update(numbers)
        elif self.kind == "tensorboard":
            board = TensorBoardLogger(str(self.folder / "tensorboard"), name="result").experiment
            for key, value in numbers.items():
                board.add_scalar(key, value)
            for path in figures:
                board.add_image(path.stem, matplotlib.image.imread(path)[..., :3], dataformats="HWC")
            board.flush()

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


def _metric_name(cell: Mapping[str, Any]) -> str:
    parts = [cell["system"], cell["attack"]]
    if cell["attack"] != "clean":
        parts += [str(cell["surface"]), f"{cell['norm']}_{cell['eps']:.4g}"]
    if cell.get("rate") is not None:
        parts.append(f"fpr_{cell['rate']:g}")
    return "accuracy/" + "/".join(parts)
