"""A paper's cell beside ours: under the paper's own protocol, and under the attack adapted to the defense."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from robustforge.papers.lookup import COPIED, NOT_RUN, look_up
from robustforge.papers.printed import load_paper_table, paper_row, paper_value
from robustforge.papers.replicates import averaged
from robustforge.records.metrics import METRICS
from robustforge.records.records import (
    CLEAN,
    WORST,
    CellKey,
    Difference,
    Outcomes,
    Records,
    outcomes,
    paired_difference,
    read_records,
    worst_outcomes,
)
from robustforge.reporting.result import make_result

REACHED = "reached"
TOLERANCE = 0.005  # points: half of the papers' last printed digit
LOWER_IS_BETTER = ("error", "rejected", "missed")


@dataclass(frozen=True)
class ComparedCell:
    """One cell of a paper's table and what we found; accuracies in percent, None where missing.

    Attributes:
        row: label of the row.
        column: label of the column.
        paper: the printed number, or None where the paper prints none.
        paper_surface: where the paper's protocol attacks.
        ours: accuracy under the paper's protocol.
        ours_interval: Wilson's 95 % interval of ``ours``.
        adapted_surface: the surface of the adapted attack, or ``worst_case`` (per sample, over all recorded attacks).
        adapted: accuracy under the adapted attack; for the clean column the clean accuracy.
        adapted_interval: Wilson's 95 % interval of ``adapted``.
        adapted_n: test images behind ``adapted``: a worst case counts only those that every attack saw.
        avg_like_code: mean of clean and attacked accuracy under the paper's protocol; some released code prints that
            under the name of robust accuracy. None in the clean column.
        n: test images behind ``ours``.
        seed: of the run.
        verdict: ``reached``, ``2.90 points short``, ``not run``, ``copied from the paper`` or ``no paper value``.
        shortfall: paper minus ours in points, or None.
        reason: why ``ours`` is missing; empty where it is not.
        adapted_reason: why ``adapted`` is missing; empty where it is not.
        gap: ``ours`` minus ``adapted``: paired bootstrap over the images that both judged, or None where one of them is
            missing or a run's records are not at hand.
        spread: half of the 95 % interval of ``ours`` over the runs of a row that averages several, points; else None.
        adapted_spread: likewise of ``adapted``.
    """

    row: str
    column: str
    paper: float | None
    paper_surface: str
    ours: float | None
    ours_interval: tuple[float, float] | None
    adapted_surface: str
    adapted: float | None
    adapted_interval: tuple[float, float] | None
    adapted_n: int | None
    avg_like_code: float | None
    n: int | None
    seed: int | None
    verdict: str
    shortfall: float | None
    reason: str
    adapted_reason: str
    gap: Difference | None = None
    spread: float | None = None
    adapted_spread: float | None = None


def compare(spec: Mapping[str, Any], results: Mapping[str, Any]) -> list[ComparedCell]:
    """Fills a paper's table, row by row.

    Args:
        spec: ``paper_table`` (an id), ``rows`` and ``columns``. A row has ``label``, ``paper_row`` and, unless it is
            only copied from the paper, ``run`` (a list averages runs that differ in their seed), ``system``,
            ``paper_surface`` (default ``end_to_end``) and ``adapted`` (a surface, or ``worst_case``, the default). A
            row may name a ``paper_table`` of its own, and a null ``paper_row`` where the paper has no such row. A
            column has ``label``, ``paper_key``, ``paper_index`` where the paper lists several budgets, ``attack``, and
            ``norm``, ``eps`` and ``rate`` (of false positives) where more than one was recorded (a row's own ``eps``,
            ``norm`` and ``attack`` come first, unless the column says ``own_attack: true``). A column may have a
            ``system`` of its own, a ``paper_scale`` (factor that makes the paper's numbers percent) and a ``metric``:
            ``accuracy`` (default), ``error`` (wrong and accepted), ``rejected``, ``auroc`` (of risk, changed images
            against clean ones; 100 is perfect) or ``recovered``, the accuracy on what the system named ``direct``
            rejects, of a system that keeps that one's other answers; or one of ``record_metrics.METRICS``, those of
            distortion over the run named ``baseline``. The adapted number may come from another run (``adapted_run``)
            or another attack (``adapted_attack``) than ours. What a row does not say may stand in the column, and the
            other way round: a
            paper that lists its budgets downwards has ``eps`` in its rows and ``run`` in its columns.
        results: by run: the content of its ``result.json``, its records (anything that ``read_records`` takes),
            None for a run that is missing, or ``{"failed": reason}``.

    Returns:
        One cell a row and column, in the order of the specification. Nothing is dropped: what is missing says why.

    Raises:
        ValueError: the specification names a paper table, row or column that does not exist.
    """
    ready = {run: _as_result(result) for run, result in results.items()}
    cells = []
    for row in spec["rows"]:
        table = load_paper_table(row.get("paper_table", spec["paper_table"]))
        for column in spec["columns"]:
            which = row.get("paper_row", column.get("paper_row"))
            printed = paper_row(table, which) if which is not None else None
            key = column.get("paper_key", row.get("paper_key"))
            paper = paper_value(printed, key, column.get("paper_index")) if printed and key else None
            paper = None if paper is None else paper * column.get("paper_scale", 1)
            together = {**column, **row}
            runs = together["run"] if isinstance(together.get("run"), list) else [together.get("run")]
            each = [_compare_one({**together, "run": run}, {**row, **column}, paper, ready) for run in runs]
            judge = partial(_judge, metric=column.get("metric"))
            cells.append(each[0] if len(each) == 1 else averaged(each, judge))
    return cells


def _as_result(source: Any) -> Mapping[str, Any] | None:
    if source is None or (isinstance(source, Mapping) and ("failed" in source or "cells" in source)):
        return source
    records = read_records(source)
    return make_result(records, {}) | {"records": records}


def _compare_one(
    row: Mapping[str, Any], column: Mapping[str, Any], paper: float | None, results: Mapping[str, Any]
) -> ComparedCell:
    own: tuple[str, ...] = ("eps", "norm") if column["attack"] == CLEAN else ("eps", "norm", "attack")
    if column.get("own_attack"):
        own = ()
    column = {**column, **{key: row[key] for key in own if key in row}}
    surface = str(column.get("paper_surface", row.get("paper_surface", "end_to_end")))
    adapted_to = str(column.get("adapted", row.get("adapted", WORST)))
    clean, ours, adapted = look_up(row, column, results, surface, adapted_to)
    average = None
    if column["attack"] != CLEAN and clean.accuracy is not None and ours.accuracy is not None:
        average = (clean.accuracy + ours.accuracy) / 2
    shortfall, verdict = _judge(paper, ours.accuracy, metric=column.get("metric"))
    return ComparedCell(
        row=str(row["label"]),
        column=str(column["label"]),
        paper=paper,
        paper_surface=surface,
        ours=ours.accuracy,
        ours_interval=ours.interval,
        adapted_surface=adapted_to,
        adapted=adapted.accuracy,
        adapted_interval=adapted.interval,
        adapted_n=adapted.cell["n"] if adapted.cell else None,
        avg_like_code=average,
        n=ours.cell["n"] if ours.cell else None,
        seed=ours.cell["seed"] if ours.cell else None,
        verdict=verdict if ours.accuracy is not None else ours.reason if ours.reason == COPIED else NOT_RUN,
        shortfall=shortfall,
        reason=ours.reason,
        adapted_reason=adapted.reason,
        gap=None
        if row.get("adapted_run") or column.get("metric") in METRICS
        else _gap((results.get(row.get("run", "")) or {}).get("records"), ours.cell, adapted.cell),
    )


def _gap(
    records: Records | None, ours: Mapping[str, Any] | None, adapted: Mapping[str, Any] | None
) -> Difference | None:
    if records is None or ours is None or adapted is None:
        return None
    return paired_difference(_held(records, ours), _held(records, adapted))


def _held(records: Records, cell: Mapping[str, Any]) -> Outcomes:
    eps = math.inf if cell["eps"] is None else cell["eps"]  # which JSON cannot write
    if cell["attack"] == WORST:
        return worst_outcomes(records, cell["system"], cell["norm"], eps, rate=cell["rate"])
    return outcomes(records.cells[CellKey(**{name: cell[name] for name in CellKey._fields} | {"eps": eps})])


def _judge(paper: float | None, ours: float | None, metric: str | None = None) -> tuple[float | None, str]:
    """(points short of the paper's number, the verdict in words)."""
    if paper is None or ours is None:
        return None, "no paper value"
    missing = ours - paper if metric in LOWER_IS_BETTER else paper - ours
    shortfall = max(0.0, missing)
    return shortfall, REACHED if shortfall <= TOLERANCE + 1e-9 else f"{shortfall:.2f} points short"
