"""Records as columns: one row a (sample, cell), read from parquet, checked once, grouped by cell."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

COLUMNS = (
    "system", "attack", "surface", "norm", "eps", "index", "label", "prediction", "success", "accepted", "risk",
    "linf", "l2", "forwards", "backwards", "seed",
)  # fmt: skip
CLEAN = "clean"


class CellKey(NamedTuple):
    """What names a cell; ``eps`` in pixel units of [0, 1]."""

    system: str
    attack: str
    surface: str
    norm: str
    eps: float


@dataclass(frozen=True)
class Records:
    """The columns of ``records.parquet`` as numpy arrays of one length."""

    columns: Mapping[str, NDArray[Any]]

    def __len__(self) -> int:
        return len(self.columns["index"])

    def __getitem__(self, column: str) -> NDArray[Any]:
        return self.columns[column]

    def where(self, mask: NDArray[np.bool_]) -> Records:
        """The rows that ``mask`` (n,) selects."""
        return Records({name: values[mask] for name, values in self.columns.items()})

    def systems(self) -> list[str]:
        """Row names in the order in which they were recorded."""
        return list(dict.fromkeys(self["system"].tolist()))

    @cached_property
    def cells(self) -> dict[CellKey, Records]:
        """Records by cell, in the order in which the cells were recorded; grouped once, asked for often."""
        code = np.zeros(len(self), dtype=np.int64)
        for name in CellKey._fields:
            values, inverse = np.unique(self[name], return_inverse=True)
            # renumbered at once, so that the code stays below the number of rows
            code = np.unique(code * len(values) + inverse, return_inverse=True)[1]
        first = np.unique(code, return_index=True)[1]
        found: dict[CellKey, Records] = {}
        for group in np.argsort(first, kind="stable"):
            part = self.where(code == group)
            found[CellKey(*(part[name][0].item() for name in CellKey._fields))] = part
        return found


def read_records(source: str | Path | pa.Table | Mapping[str, Any] | Records) -> Records:
    """Reads and checks records.

    Args:
        source: path of a parquet file or of a run folder, a pyarrow table, columns by name, or records already read.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a column is missing, or one cell holds the same sample twice.
    """
    if isinstance(source, Records):
        return source
    columns = dict(source) if isinstance(source, Mapping) else _columns(source)
    missing = [name for name in COLUMNS if name not in columns]
    if missing:
        raise ValueError(f"The records lack the columns {', '.join(missing)}: evaluate the run again.")
    strings = ("system", "attack", "surface", "norm")
    arrays = {name: np.asarray(columns[name], dtype=str if name in strings else None) for name in COLUMNS}
    arrays["risk"] = arrays["risk"].astype(float)  # a defense without a risk may write nulls
    eps = arrays["eps"].astype(float)
    # a budget that went through float32 is the same budget; an attack without one may go any distance
    arrays["eps"] = np.where(np.isnan(eps), np.inf, eps).round(7)
    records = Records(arrays)
    for key, part in records.cells.items():
        if len(np.unique(part["index"])) != len(part):
            raise ValueError(f"The cell {key} holds a sample twice: keep one record per (sample, cell).")
    return records


def _columns(source: str | Path | pa.Table) -> dict[str, Any]:
    if not isinstance(source, pa.Table):
        path = Path(source)
        path = path / "records.parquet" if path.is_dir() else path
        if not path.is_file():
            raise FileNotFoundError(f"There are no records at '{path}': evaluate the run first.")
        source = pq.read_table(path)
    return {name: source[name].to_numpy(zero_copy_only=False) for name in source.column_names}


def same_eps(a: float, b: float) -> bool:
    """Whether two budgets are the same one, written with more or fewer digits (0.0353 and 9/255)."""
    return math.isclose(a, b, rel_tol=2e-3, abs_tol=1e-7)
