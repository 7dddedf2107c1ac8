"""Many runs in one table: what was varied, what came out, and which runs failed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from robustforge.indicators.verdict import UNRELIABLE
from robustforge.records.summary import WORST
from robustforge.records.table import CLEAN
from robustforge.reporting.text import MISSING, csv_text, half_width, markdown_table, percent

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
        return csv_text(self.header, self.rows)


def summary_of_runs(results: Sequence[tuple[Overrides, dict[str, Any] | None]]) -> Summary:
    """Compares the runs of a sweep.

    Args:
        results: (overrides, result) a run. Overrides are ``key=value`` strings or a mapping. A run without a result
            is a failed one: None, or ``{"failed": reason}``. One that was not evaluated is ``{"state": "trained"}``.

    Returns:
        Columns: the override keys that are not the same in every run, the defense's clean accuracy, its worst case
        at the default budget, the objective, and the state (``ok``, ``trained``, or ``failed`` with the reason).
    """
    overrides = [as_mapping(one) for one, _ in results]
    keys = varied(overrides)
    rows, failed = [], []
    for one, (_, result) in zip(overrides, results, strict=True):
        numbers = _numbers(result) if result and "cells" in result else [MISSING] * 3 + [_state(result)]
        rows.append([one.get(k, MISSING) for k in keys] + numbers)
        failed.append(numbers[-1].startswith(FAILED))
    return Summary([*keys, "clean", "worst case", "objective", "state"], rows, failed)


def varied(overrides: Sequence[Mapping[str, str]]) -> list[str]:
    """The keys that are not the same in every run."""
    keys = dict.fromkeys(key for one in overrides for key in one)
    return [key for key in keys if len({one.get(key) for one in overrides}) > 1]


def as_mapping(overrides: Overrides) -> dict[str, str]:
    """Overrides by key, whether they were texts or a mapping."""
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


def clean_and_worst(result: Mapping[str, Any]) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """The defense's clean cell and its worst case at the default budget, where there are such."""
    mine = [c for c in [*result["cells"], *result["worst_case"]] if c["system"] == result["defense"]]
    at = result.get("objective_of") or {}
    mine = [c for c in mine if c.get("rate") == at.get("rate")]
    clean = [c for c in mine if c["attack"] == CLEAN]
    worst = [c for c in mine if c["attack"] == WORST and (c["norm"], c["eps"]) == (at.get("norm"), at.get("eps"))]
    return (clean[0] if clean else None), (worst[0] if worst else None)


def _numbers(result: dict[str, Any]) -> list[str]:
    clean, worst = clean_and_worst(result)
    objective = result["objective"]
    unreliable = worst is not None and worst.get("verdict") == UNRELIABLE
    reasons = [name.replace("_", " ") for name in worst["violated"]] if worst is not None and unreliable else []
    state = f"{OK}, but unreliable: {', '.join(reasons)}" if reasons else OK
    return [_accuracy(clean), _accuracy(worst), MISSING if objective is None else f"{objective:.2f}", state]


def _accuracy(cell: dict[str, Any] | None) -> str:
    if cell is None or cell["accuracy"] is None:
        return MISSING
    return f"{percent(cell['accuracy'], cell['n'])} {half_width(cell['interval'], cell['n'])}"
