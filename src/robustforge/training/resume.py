"""Where a killed stage continues: one checkpoint, replaced after every epoch in a single rename."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from robustforge.defenses.stages import FitStage
from robustforge.interruption import check, listen
from robustforge.training.store import check_finite


class ResumePoint(Callback):
    """Keeps ``<folder>/resume.ckpt`` at the end of the last finished epoch.

    Lightning's own checkpoint callback writes in place: killed at the wrong moment, it leaves half a file.
    """

    def __init__(self, folder: Path, stage: FitStage) -> None:
        self.path, self.stage = folder / "resume.ckpt", stage

    @property
    def found(self) -> str | None:
        """The checkpoint to continue from, or None."""
        return str(self.path) if self.path.exists() else None

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Lightning has put its own handlers of signals in place; ours come back."""
        listen()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Ends here where a signal came whose exception was lost."""
        check()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Replaces the checkpoint, unless the epoch ended with weights that are not finite.

        Every rank takes part, rank 0 writes.
        """
        check_finite(pl_module, self.stage.trains, f"in stage {self.stage.name}, epoch {trainer.current_epoch}")
        half = self.path.with_suffix(".half")
        trainer.save_checkpoint(half)
        if trainer.is_global_zero:
            os.replace(half, self.path)
