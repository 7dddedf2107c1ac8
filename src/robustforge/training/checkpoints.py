"""Checkpoints written where they belong."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO


class LocalCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint straight into its file.

    Lightning's own writes to the folder of temporary files first and moves it from there: to another file system that
    may be full, and a process that is killed meanwhile leaves it behind.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Writes one checkpoint; the caller renames it when it is whole.

        Raises:
            OSError: the disk is full, or the folder cannot be written.
        """
        buffer = io.BytesIO()  # torch's own writer hides what the file system says
        torch.save(checkpoint, buffer)
        with Path(path).open("wb") as file:
            file.write(buffer.getbuffer())
