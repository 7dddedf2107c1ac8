"""Records as columns: one row a (sample, cell), read from parquet, checked once, grouped by cell."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

COLUMNS = (
    "system",
    "attack",
    "surface",
    "norm",
    "eps",
    "index",
    "label",
    "prediction",
    "success",
    "accepted",
    "risk",
    "linf",
    "l2",
    "forwards",
    "backwards",
    "seed",
)
# what older files lack, and what then stands in its place
OPTIONAL = {
    "zero_gradient": np.nan,
    "loss_gain": np.nan,
    "best_at": np.nan,
    "false_positive_rate": np.nan,
    "threshold": np.nan,
    "check": "",
    "evades": 0.0,
}
STRINGS = ("system", "attack", "surface", "norm", "check")
SECONDS = b"robustforge.seconds"  # metadata of the file: seconds of each cell
CLEAN = "clean"
# checks whose attacks stay within the budget: what they break is broken (evaluation/checks.py makes them)
WITHIN_BUDGET = ("restarts", "steps")


class CellKey(NamedTuple):
    """What names a cell.

    Attributes:
        eps: budget in pixel units of [0, 1].
        rate: false-positive rate of the system's threshold on risk, or None where it accepts everything.
        check: what the cell checks on a subset of the images, or empty.
    """

    system: str
    attack: str
    surface: str
    norm: str
    eps: float
    rate: float | None = None
    check: str = ""


@dataclass(frozen=True)
class Records:
    """The columns of ``records.parquet`` as numpy arrays of one length, and the seconds that each cell took."""

    columns: Mapping[str, NDArray[Any]]
    seconds: Mapping[CellKey, float] = field(default_factory=dict)

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
        for name in _KEY_COLUMNS:
            values = self[name] if name != "false_positive_rate" else np.nan_to_num(self[name], nan=-1.0)
            values, inverse = np.unique(values, return_inverse=True)
            # renumbered at once, so that the code stays below the number of rows
            code = np.unique(code * len(values) + inverse, return_inverse=True)[1]
        first = np.unique(code, return_index=True)[1]
        found: dict[CellKey, Records] = {}
        for group in np.argsort(first, kind="stable"):
            part = self.where(code == group)
            found[_key([part[name][0].item() for name in _KEY_COLUMNS])] = part
        return found


_KEY_COLUMNS = ("system", "attack", "surface", "norm", "eps", "false_positive_rate", "check")


def _key(values: list[Any]) -> CellKey:
    """A cell's name from its columns; NaN, which equals nothing, must not stand in it."""
    *words, eps, rate, check = values
    unbounded = eps is None or math.isnan(eps)
    return CellKey(
        *words, math.inf if unbounded else round(eps, 7), None if rate is None or math.isnan(rate) else rate, check
    )


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
    columns, seconds = (dict(source), {}) if isinstance(source, Mapping) else _columns(source)
    missing = [name for name in COLUMNS if name not in columns]
    if missing:
        raise ValueError(f"The records lack the columns {', '.join(missing)}: evaluate the run again.")
    columns = {name: np.full(len(columns["index"]), value) for name, value in OPTIONAL.items()} | columns
    names = (*COLUMNS, *OPTIONAL)
    arrays = {name: np.asarray(columns[name], dtype=str if name in STRINGS else None) for name in names}
    for name in ("risk", *OPTIONAL):  # a defense without a risk may write nulls
        arrays[name] = arrays[name] if name in STRINGS else arrays[name].astype(float)
    eps = arrays["eps"].astype(float)
    # a budget that went through float32 is the same budget; an attack without one may go any distance
    arrays["eps"] = np.where(np.isnan(eps), np.inf, eps).round(7)
    records = Records(arrays, seconds)
    for key, part in records.cells.items():
        if len(np.unique(part["index"])) != len(part):
            raise ValueError(f"The cell {key} holds a sample twice: keep one record per (sample, cell).")
    return records


def _columns(source: str | Path | pa.Table) -> tuple[dict[str, Any], dict[CellKey, float]]:
    if not isinstance(source, pa.Table):
        path = Path(source)
        path = path / "records.parquet" if path.is_dir() else path
        if not path.is_file():
            raise FileNotFoundError(f"There are no records at '{path}': evaluate the run first.")
        source = pq.read_table(path)
    spent = json.loads((source.schema.metadata or {}).get(SECONDS, b"[]"))
    seconds = {_key(cell): value for *cell, value in spent}
    return {name: source[name].to_numpy(zero_copy_only=False) for name in source.column_names}, seconds


def same_eps(a: float, b: float) -> bool:
    """Whether two budgets are the same one, written with more or fewer digits (0.0353 and 9/255)."""
    return math.isclose(a, b, rel_tol=2e-3, abs_tol=1e-7)
