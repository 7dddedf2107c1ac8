"""Records in memory: the columns as numpy arrays, grouped by cell."""

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
import pyarrow.compute as pc
from numpy.typing import NDArray

from robustforge.records.schema import CELL_COLUMNS, MEMBERS, SECONDS, read_table

CLEAN = "clean"  # the attack's name in records of images that nothing attacked
# checks whose attacks stay within the budget, so that their successes count (evaluation/checks.py makes them)
WITHIN_BUDGET = ("restarts", "steps")


class CellKey(NamedTuple):
    """What names a cell.

    Attributes:
        system: row of the table.
        attack: its name, or ``clean``.
        surface: where the attack ran.
        norm: of the budget.
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
    """Records with all columns of :mod:`robustforge.records.schema`; ``records["risk"]`` is a column as numpy array."""

    table: pa.Table
    _arrays: dict[str, NDArray[Any]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, column: str) -> NDArray[Any]:
        if column not in self._arrays:
            self._arrays[column] = self.table[column].to_numpy()
        return self._arrays[column]

    def where(self, mask: NDArray[np.bool_]) -> Records:
        """The rows that ``mask`` (n,) selects."""
        return Records(self.table.filter(pa.array(mask)))

    def systems(self) -> list[str]:
        """Row names in the order in which they were recorded."""
        return list(dict.fromkeys(key.system for key in self.cells))

    @cached_property
    def seconds(self) -> dict[CellKey, float]:
        """Wall time of the cells, as far as it was recorded."""
        spent = json.loads((self.table.schema.metadata or {}).get(SECONDS, b"[]"))
        return {_key(*cell): value for *cell, value in spent}

    @cached_property
    def members(self) -> dict[CellKey, list[dict[str, Any]]]:
        """What each attack of an ensemble did, see :func:`robustforge.records.members.member_facts`."""
        told = json.loads((self.table.schema.metadata or {}).get(MEMBERS, b"[]"))
        return {_key(*cell): facts for *cell, facts in told}

    @cached_property
    def cells(self) -> dict[CellKey, Records]:
        """Records by cell, in the order in which the cells were recorded."""
        rows = pa.array(np.arange(len(self)))
        grouped = self.table.select(CELL_COLUMNS).append_column("row", rows)
        # one thread, so that the rows of a group keep their order
        grouped = grouped.group_by(list(CELL_COLUMNS), use_threads=False).aggregate([("row", "list")])
        rows_of = {
            _key(*key.values()): rows.values.to_numpy()
            for key, rows in zip(grouped.select(CELL_COLUMNS).to_pylist(), grouped["row_list"], strict=True)
        }
        ordered = sorted(rows_of.items(), key=lambda item: item[1][0])
        return {key: Records(self._take(rows)) for key, rows in ordered}

    def _take(self, rows: NDArray[np.int64]) -> pa.Table:
        """The given rows (ascending); neighbors are not copied."""
        if rows[-1] - rows[0] + 1 == len(rows):
            return self.table.slice(rows[0], len(rows))
        return self.table.take(rows).combine_chunks()


def _key(
    system: str, attack: str, surface: str, norm: str, eps: float | None, rate: float | None, check: str
) -> CellKey:
    """A cell's name from its columns; NaN, which is equal to nothing, becomes infinity or None."""
    eps = math.inf if eps is None or math.isnan(eps) else round(eps, 7)
    rate = None if rate is None or math.isnan(rate) else rate
    return CellKey(system, attack, surface, norm, eps, rate, check)


def read_records(source: str | Path | pa.Table | Mapping[str, Any] | Records) -> Records:
    """Reads and checks records.

    Args:
        source: anything that :func:`robustforge.records.schema.read_table` takes, or records already read.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a column is missing, or one cell holds the same sample twice.
    """
    if isinstance(source, Records):
        return source
    table = read_table(source)
    eps = table["eps"].to_numpy()
    # a budget that went through float32 is the same budget; an attack without one may go any distance
    eps = np.where(np.isnan(eps), np.inf, eps).round(7)
    rate = pc.if_else(pc.is_nan(table["false_positive_rate"]), None, table["false_positive_rate"])
    for name, values in (("eps", pa.array(eps)), ("false_positive_rate", rate)):
        table = table.set_column(table.schema.get_field_index(name), table.schema.field(name), values)
    records = Records(table)
    for key, part in records.cells.items():
        if len(np.unique(part["index"])) != len(part):
            raise ValueError(f"The cell {key} holds a sample twice: keep one record per (sample, cell).")
    return records


def same_eps(a: float, b: float) -> bool:
    """Whether two budgets are the same one, written with more or fewer digits (0.0353 and 9/255)."""
    return math.isclose(a, b, rel_tol=2e-3, abs_tol=1e-7)
