"""Finished batches of a cell, kept until the cell is done, so that a killed evaluation loses one batch at most."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

from torch import Tensor

from robustforge.files import read_arrays, write_arrays
from robustforge.manifest import set_aside
from robustforge.types import UserError


class Parts:
    """Columns of finished batches in a folder of their own, found again by the very samples that a batch holds.

    Another batch size or number of processes makes other batches, which are then attacked afresh.

    Args:
        folder: of one cell.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find(self, index: Tensor) -> dict[str, Any] | None:
        """The columns of the batch with these sample numbers (B,), or None. A damaged file is set aside."""
        path = self._path(index)
        try:
            columns = read_arrays(path)
        except UserError as error:
            set_aside(path, error)
            return None
        if columns is not None and any(len(column) != len(index) for column in columns.values()):
            set_aside(path, f"'{path}' is damaged: it holds other samples.")
            return None
        return columns

    def keep(self, index: Tensor, columns: dict[str, Any]) -> None:
        """Keeps one batch's columns."""
        write_arrays(self._path(index), **columns)

    def discard(self) -> None:
        """Forgets them all: the cell is finished."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, index: Tensor) -> Path:
        digest = hashlib.sha256(index.cpu().numpy().astype("<i8").tobytes()).hexdigest()[:16]
        return self.folder / f"{digest}.npz"
