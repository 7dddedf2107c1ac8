"""A paper's cells beside ours: under the paper's own protocol, and under the attack adapted to the defense."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from robustforge.papers.compared import ComparedCell, judge
from robustforge.papers.costs import COSTS
from robustforge.papers.lookup import COPIED, NOT_RUN, look_up
from robustforge.papers.printed import load_paper_table, paper_row, paper_value
from robustforge.papers.replicates import over_runs
from robustforge.papers.specification import AVERAGED, CellSpec, TableSpec
from robustforge.records.metrics import METRICS
from robustforge.records.statistics import Difference, Outcomes, paired_difference
from robustforge.records.summary import WORST, outcomes, worst_outcomes
from robustforge.records.table import CLEAN, CellKey, Records, read_records
from robustforge.reporting.result import make_result


def compare(spec: TableSpec, results: Mapping[str, Any]) -> list[ComparedCell]:
    """Fills a paper's table, row by row.

    Args:
        spec: of the table.
        results: by run: the content of its ``result.json``, its records (anything that ``read_records`` takes),
            None for a run that is missing, or ``{"failed": reason}``.

    Returns:
        One cell a row and column, in the order of the specification. Nothing is dropped: what is missing says why.

    Raises:
        ValueError: the specification names a paper table, row or column that does not exist.
    """
    ready = {run: _as_result(result) for run, result in results.items()}
    cells = []
    for cell in spec.cells:
        paper = paper_number(cell)
        each = {run: _compare_one(replace(cell, run=(run,)), paper, ready) for run in cell.run}
        if len(each) > 1:
            cells.append(over_runs(each, cell.metric, cell.partial))
        else:
            cells.append(_compare_one(cell, paper, ready))
    return cells


def paper_number(cell: CellSpec) -> float | None:
    """The printed number of a cell in percent, or None."""
    if cell.paper_row is None:
        if cell.paper_table:
            load_paper_table(cell.paper_table)  # refuses a name that is none
        return None
    table = load_paper_table(cell.paper_table)
    row = paper_row(table, cell.paper_row)
    value = paper_value(row, cell.paper_key, cell.paper_index) if cell.paper_key else None
    return None if value is None else value * cell.paper_scale


def _as_result(source: Any) -> Mapping[str, Any] | None:
    if source is None or (isinstance(source, Mapping) and ("failed" in source or "cells" in source)):
        return source
    records = read_records(source)
    return make_result(records, {}) | {"records": records}


def _compare_one(cell: CellSpec, paper: float | None, results: Mapping[str, Any]) -> ComparedCell:
    clean, ours, adapted = look_up(cell, results)
    average = None
    if cell.metric != AVERAGED and cell.attack != CLEAN and clean.accuracy is not None and ours.accuracy is not None:
        average = (clean.accuracy + ours.accuracy) / 2
    shortfall, verdict = judge(paper, ours.accuracy, cell.metric)
    if ours.accuracy is None:
        verdict = COPIED if ours.reason == COPIED else NOT_RUN
    gap = None
    if cell.run and not cell.adapted_run and cell.metric not in (*METRICS, *COSTS):
        gap = _gap((results.get(cell.run[0]) or {}).get("records"), ours.cell, adapted.cell)
    return ComparedCell(
        row=cell.row,
        column=cell.column,
        paper=paper,
        paper_surface=cell.paper_surface,
        ours=ours.accuracy,
        ours_interval=ours.interval,
        adapted_surface=cell.adapted,
        adapted=adapted.accuracy,
        adapted_interval=adapted.interval,
        adapted_n=adapted.cell["n"] if adapted.cell else None,
        avg_like_code=average,
        n=ours.cell["n"] if ours.cell else None,
        seed=ours.cell["seed"] if ours.cell else None,
        verdict=verdict,
        shortfall=shortfall,
        reason=ours.reason,
        adapted_reason=adapted.reason,
        gap=gap,
        violated=tuple((ours.cell or {}).get("violated", ())),
        adapted_violated=tuple((adapted.cell or {}).get("violated", ())),
        adapted_verdict=(adapted.cell or {}).get("verdict") or "",
        metric=cell.metric,
    )


def _gap(
    records: Records | None, ours: Mapping[str, Any] | None, adapted: Mapping[str, Any] | None
) -> Difference | None:
    if records is None or ours is None or adapted is None:
        return None
    return paired_difference(_outcomes(records, ours), _outcomes(records, adapted))


def _outcomes(records: Records, cell: Mapping[str, Any]) -> Outcomes:
    eps = math.inf if cell["eps"] is None else cell["eps"]  # which JSON cannot write
    if cell["attack"] == WORST:
        return worst_outcomes(records, cell["system"], cell["norm"], eps, rate=cell["rate"])
    return outcomes(records.cells[CellKey(**{name: cell[name] for name in CellKey._fields} | {"eps": eps})])
