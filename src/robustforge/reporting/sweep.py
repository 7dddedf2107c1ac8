"""Many runs in one table: what was varied, what came out, and which runs failed."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from robustforge.indicators.verdict import UNRELIABLE
from robustforge.records.summary import WORST
from robustforge.records.table import CLEAN
from robustforge.reporting.text import MISSING, half_width, markdown_table, percent

Overrides = Mapping[str, Any] | Sequence[str]
FAILED = "failed"
OK = "ok"
STATE = "state"


@dataclass(frozen=True)
class Summary:
    """A sweep as text: one row a run, in the order given; ``failed`` marks the rows of runs without a result."""

    header: list[str]
    rows: list[list[str]]
    failed: list[bool]

    def table(self, title: str = "sweep") -> Table:
        """For the terminal."""
        table = Table(title=title)
        for name in self.header:
            table.add_column(escape(name), justify="right")
        for row, failed in zip(self.rows, self.failed, strict=True):
            table.add_row(*(Text(value, style="red" if failed else "") for value in row))
        return table

    def markdown(self) -> str:
        """For a page."""
        return markdown_table(self.header, self.rows)

    def csv(self) -> str:
        """For a spreadsheet."""
        out = io.StringIO()
        csv.writer(out, lineterminator="\n").writerows([self.header, *self.rows])
        return out.getvalue()


def summary_of_runs(results: Sequence[tuple[Overrides, dict[str, Any] | None]]) -> Summary:
    """Compares the runs of a sweep.

    Args:
        results: (overrides, result) a run. Overrides are ``key=value`` strings or a mapping. A run without a result
            is a failed one: None, or ``{"failed": reason}``. One that was not evaluated is ``{"state": "trained"}``.

    Returns:
        Columns: the override keys that are not the same in every run, the defense's clean accuracy, its worst case
        at the default budget, the objective, and the state (``ok``, ``trained``, or ``failed`` with the reason).
    """
    overrides = [_mapping(one) for one, _ in results]
    keys = [k for k in dict.fromkeys(k for one in overrides for k in one) if len({one.get(k) for one in overrides}) > 1]
    rows, failed = [], []
    for one, (_, result) in zip(overrides, results, strict=True):
        numbers = _numbers(result) if result and "cells" in result else [MISSING] * 3 + [_state(result)]
        rows.append([one.get(k, MISSING) for k in keys] + numbers)
        failed.append(numbers[-1].startswith(FAILED))
    return Summary([*keys, "clean", "worst case", "objective", "state"], rows, failed)


def _mapping(overrides: Overrides) -> dict[str, str]:
    if isinstance(overrides, Mapping):
        return {str(key): str(value) for key, value in overrides.items()}
    pairs = (str(one).lstrip("+~").partition("=") for one in overrides)
    return {key: value for key, _, value in pairs}


def _state(result: dict[str, Any] | None) -> str:
    """Of a run without numbers."""
    if result and STATE in result:
        return str(result[STATE])
    reason = (result or {}).get(FAILED)
    return f"{FAILED}: {reason}" if isinstance(reason, str) and reason else FAILED


def _numbers(result: dict[str, Any]) -> list[str]:
    mine = [c for c in [*result["cells"], *result["worst_case"]] if c["system"] == result["defense"]]
    at = result.get("objective_of") or {}
    mine = [c for c in mine if c.get("rate") == at.get("rate")]
    clean = [c for c in mine if c["attack"] == CLEAN]
    worst = [c for c in mine if c["attack"] == WORST and (c["norm"], c["eps"]) == (at.get("norm"), at.get("eps"))]
    objective = result["objective"]
    reasons = [name.replace("_", " ") for c in worst if c.get("verdict") == UNRELIABLE for name in c["violated"]]
    state = f"{OK}, but unreliable: {', '.join(reasons)}" if reasons else OK
    return [_accuracy(clean), _accuracy(worst), MISSING if objective is None else f"{objective:.2f}", state]


def _accuracy(cells: list[dict[str, Any]]) -> str:
    if not cells or cells[0]["accuracy"] is None:
        return MISSING
    cell = cells[0]
    return f"{percent(cell['accuracy'], cell['n'])} {half_width(cell['interval'], cell['n'])}"
