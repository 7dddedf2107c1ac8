"""A progress bar that says which stage is under way; in a log file, a line from time to time."""

from __future__ import annotations

import logging
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar
from rich.console import Console

from robustforge.pace import Pace

log = logging.getLogger(__name__)


class StageProgress(RichProgressBar):
    """Lightning's rich bar with the stage's name, without the version number.

    Where nobody looks at a terminal, a line every half minute takes its place.
    """

    def __init__(self) -> None:
        super().__init__(leave=False, refresh_rate=5)
        self._stage = ""
        self._lines = not Console().is_terminal
        self._pace = Pace(0)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Notes the stage's name."""
        stage = getattr(pl_module, "stage", None)
        self._stage = "" if stage is None else stage.name
        self._pace = Pace(trainer.max_epochs or 0, trainer.current_epoch)
        if self._lines:
            self.disable()
        super().on_train_start(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Says how far the stage is."""
        super().on_train_epoch_end(trainer, pl_module)
        self._pace.done = trainer.current_epoch + 1
        if self._lines and trainer.is_global_zero and self._pace.due():
            loss = trainer.callback_metrics.get(f"{self._stage}/train/loss")
            words = [f"epoch {self._pace.done:.0f} of {self._pace.total:.0f}"]
            words += [] if loss is None else [f"loss {float(loss):.4g}"]
            log.info("  %s: %s", self._stage, ", ".join(filter(None, [*words, self._pace.left()])))

    def _get_train_description(self, current_epoch: int) -> str:
        return f"{self._stage}: {super()._get_train_description(current_epoch)}"

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """Metrics beside the bar."""
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        return metrics
