"""Where a killed stage continues: one checkpoint, replaced every few seconds, after an epoch, in a single rename."""

from __future__ import annotations

import os
import pickle
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback

from robustforge.defenses.stages import FitStage
from robustforge.files import write_json
from robustforge.interruption import check, listen
from robustforge.manifest import check_file, file_hash, read_object, set_aside
from robustforge.training import distributed
from robustforge.training.store import check_finite
from robustforge.types import DamagedError

SHARE = 50
"""Least seconds between two checkpoints, in those that one takes to write: they cost at most a fiftieth of a fit."""


class ResumePoint(Callback):
    """Keeps ``<folder>/resume.ckpt`` at the end of an epoch, of which a killed fit repeats what came later.

    Lightning's own checkpoint callback writes in place: killed at the wrong moment, it leaves half a file. Its hash
    lies beside it in ``resume.json``, together with that of the checkpoint which it replaces: a kill between the two
    writes leaves either one.

    Args:
        folder: of the stage in the making.
        stage: that is trained.
        every: least seconds between two checkpoints, and before the first; more where writing one takes long (see
            ``SHARE``). 0 for one after every epoch.
    """

    def __init__(self, folder: Path, stage: FitStage, every: float) -> None:
        self.path, self.stage, self.every = folder / "resume.ckpt", stage, every
        self._due = 0.0  # on the clock of time.monotonic
        self.manifest = folder / "resume.json"
        self._last: list[str] = []  # hash of the checkpoint that is there

    def find(self) -> str | None:
        """The checkpoint to continue from, or None. One that is damaged is set aside; every rank takes part."""
        return str(self.path) if distributed.agree(distributed.rank() == 0 and self._usable()) else None

    def _usable(self) -> bool:
        if not self.path.exists():
            return False
        try:
            check_file(self.path, self._hashes())
            self._last = [file_hash(self.path)]
            torch.load(self.path, map_location="cpu", weights_only=True, mmap=True)
        except (DamagedError, pickle.UnpicklingError, RuntimeError, OSError, ValueError, EOFError) as error:
            told = error if isinstance(error, DamagedError) else f"'{self.path}' cannot be loaded as tensors."
            set_aside(self.path, told)
            return False
        return True

    def _hashes(self) -> list[str]:
        """Of the checkpoint, and of the one before it."""
        found = read_object(self.manifest).get("sha256")
        return [digest for digest in found if isinstance(digest, str)] if isinstance(found, list) else []

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Lightning has put its own handlers of signals in place; ours come back."""
        listen()
        self._due = time.monotonic() + self.every

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Ends here where a signal came whose exception was lost."""
        check()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Replaces the checkpoint when it is time, unless the epoch ended with weights that are not finite.

        Every rank takes part, rank 0 looks at the clock and writes.
        """
        check_finite(pl_module, self.stage.trains, f"in stage {self.stage.name}, epoch {trainer.current_epoch}")
        started = time.monotonic()
        if not distributed.agree(started >= self._due):
            return
        half = self.path.with_suffix(".half")
        trainer.save_checkpoint(half)
        if trainer.is_global_zero:
            digest = [file_hash(half)]
            write_json(self.manifest, {"sha256": digest + self._last})
            os.replace(half, self.path)
            self._last = digest
        ended = time.monotonic()
        self._due = ended + (max(self.every, SHARE * (ended - started)) if self.every else 0.0)
