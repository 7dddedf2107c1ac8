"""Runs that differ in their seed alone, folded into one row: means, and how far they may be trusted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from robustforge.records.statistics import mean_interval
from robustforge.reporting.sweep import Overrides, Summary, as_mapping, clean_and_worst, varied
from robustforge.reporting.text import MISSING

SEED = "seed"


def over_seeds(results: Sequence[tuple[Overrides, dict[str, Any] | None]]) -> Summary | None:
    """One row for all runs that differ in their seed alone.

    Args:
        results: (overrides, result) a run, see :func:`robustforge.reporting.sweep.summary_of_runs`.

    Returns:
        Columns: the other override keys that vary, how many seeds have a result, and mean ± half of Student's 95 %
        interval of clean accuracy, worst case and objective. None where no seed was varied.
    """
    overrides = [as_mapping(one) for one, _ in results]
    keys = varied(overrides)
    if SEED not in keys:
        return None
    keys = [key for key in keys if key != SEED]
    groups: dict[tuple[str, ...], list[dict[str, Any] | None]] = {}
    for one, (_, result) in zip(overrides, results, strict=True):
        groups.setdefault(tuple(one.get(key, MISSING) for key in keys), []).append(result)
    rows, failed = [], []
    for values, found in groups.items():
        finished = [result for result in found if result and "cells" in result]
        rows.append([*values, f"{len(finished)} of {len(found)}", *_folded(finished)])
        failed.append(len(finished) < len(found))
    return Summary([*keys, "seeds", "clean", "worst case", "objective"], rows, failed)


def _folded(results: Sequence[dict[str, Any]]) -> list[str]:
    columns: list[list[float | None]] = [[], [], []]
    for result in results:
        cells = clean_and_worst(result)
        for column, cell in zip(columns, cells, strict=False):
            column.append(None if cell is None else cell["accuracy"])
        columns[2].append(result["objective"])
    return [_spread(column) for column in columns]


def _spread(values: Sequence[float | None]) -> str:
    """Mean ± half interval; without it for one run; missing where a run lacks the number."""
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return MISSING
    if len(known) == 1:
        return f"{known[0]:.2f}"
    mean, (low, high) = mean_interval(known)
    return f"{mean:.2f} ± {(high - low) / 2:.2f}"
