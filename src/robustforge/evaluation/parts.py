"""Finished batches of a cell, kept until the cell is done, so that a killed evaluation loses one batch at most."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robustforge.files import read_arrays, write_arrays
from robustforge.manifest import set_aside
from robustforge.types import DamagedError, UserError

SECONDS = "seconds"  # of a batch, beside its columns


@dataclass(frozen=True)
class Finished:
    """What is finished of a cell.

    Attributes:
        parts: columns of records, one mapping a batch.
        index: (n,) the samples in all of them, each once.
        seconds: that they took, on whatever machines.
    """

    parts: list[Mapping[str, NDArray[Any]]]
    index: NDArray[np.int64]
    seconds: float


class Parts:
    """Columns of finished batches in a folder of their own, whatever the size of the batches and whoever attacked them.

    Args:
        folder: of one cell.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def finished(self) -> Finished:
        """All that is kept; a sample that two batches hold counts once. Damaged files are set aside."""
        parts: list[Mapping[str, NDArray[Any]]] = []
        index, seconds = np.zeros(0, dtype=np.int64), 0.0
        for path in sorted(self.folder.glob("*.npz")):
            columns = self._read(path)
            if columns is None:
                continue
            seconds += float(columns.pop(SECONDS))
            new = ~np.isin(columns["index"], index)
            parts.append({name: values[new] for name, values in columns.items()})
            index = np.concatenate([index, parts[-1]["index"]])
        return Finished(parts, index, seconds)

    def keep(self, columns: dict[str, Any], seconds: float = 0.0) -> None:
        """Keeps one batch's columns (B,), of which ``index`` says which samples they are of."""
        write_arrays(self._path(columns["index"]), **columns, **{SECONDS: np.float64(seconds)})

    def discard(self) -> None:
        """Forgets them all: the cell is finished."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _read(self, path: Path) -> dict[str, NDArray[Any]] | None:
        try:
            columns = read_arrays(path)
            if columns is None or not self._belongs(columns, path):
                raise DamagedError(f"'{path}' is damaged: it holds other samples.")
        except UserError as error:
            set_aside(path, error)
            return None
        return columns

    def _belongs(self, columns: dict[str, NDArray[Any]], path: Path) -> bool:
        """Whether they are columns of the samples that a file is named after."""
        index, seconds = columns.get("index"), columns.get(SECONDS)
        if index is None or index.ndim != 1 or index.dtype != np.int64 or seconds is None or seconds.ndim:
            return False
        sizes = {len(values) if values.ndim else -1 for name, values in columns.items() if name != SECONDS}
        return sizes == {len(index)} and self._path(index) == path

    def _path(self, index: NDArray[np.int64]) -> Path:
        digest = hashlib.sha256(np.ascontiguousarray(index, dtype="<i8").tobytes()).hexdigest()[:16]
        return self.folder / f"{digest}.npz"
