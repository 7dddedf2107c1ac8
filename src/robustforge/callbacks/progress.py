"""A progress bar that says which stage is under way."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar


class StageProgress(RichProgressBar):
    """Lightning's rich bar with the stage's name, without the version number."""

    def __init__(self) -> None:
        super().__init__(leave=False, refresh_rate=5)
        self._stage = ""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Notes the stage's name."""
        stage = getattr(pl_module, "stage", None)
        self._stage = "" if stage is None else stage.name
        super().on_train_start(trainer, pl_module)

    def _get_train_description(self, current_epoch: int) -> str:
        return f"{self._stage}: {super()._get_train_description(current_epoch)}"

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """Metrics beside the bar."""
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        return metrics
