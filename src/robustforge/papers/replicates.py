"""One cell for several runs that differ in their seed alone: the mean, and how far it may be trusted."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import replace

from robustforge.papers.compared import ComparedCell, judge

# two-sided 95 % quantiles of Student's t by degrees of freedom; beyond the list the normal one is 0.2 short at most
_T_95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
_NORMAL_95 = 1.960


def mean_interval(values: Sequence[float]) -> tuple[float, tuple[float, float]]:
    """Mean of independent runs and Student's 95 % interval for the mean of all such runs.

    Args:
        values: one a run, percent; at least two.

    Returns:
        (mean, (low, high)), the interval cut to [0, 100].

    Raises:
        ValueError: fewer than two values.
    """
    if len(values) < 2:
        raise ValueError(f"{len(values)} run has no spread: give at least two.")
    mean = statistics.fmean(values)
    quantile = _T_95[len(values) - 2] if len(values) - 2 < len(_T_95) else _NORMAL_95
    half = quantile * statistics.stdev(values) / math.sqrt(len(values))
    return mean, (max(0.0, mean - half), min(100.0, mean + half))


def averaged(cells: Sequence[ComparedCell], metric: str) -> ComparedCell:
    """The mean of one cell of a table over several runs; missing where one of them is.

    Args:
        cells: the cell of each run.
        metric: what the numbers are; of some, lower is better.
    """
    missing = next((cell for cell in cells if cell.ours is None or cell.adapted is None), None)
    if missing is not None:
        return missing
    ours, interval = mean_interval([cell.ours for cell in cells if cell.ours is not None])
    adapted, adapted_interval = mean_interval([cell.adapted for cell in cells if cell.adapted is not None])
    shortfall, verdict = judge(cells[0].paper, ours, metric)
    return replace(
        cells[0],
        ours=ours,
        ours_interval=interval,
        adapted=adapted,
        adapted_interval=adapted_interval,
        seed=None,
        verdict=verdict,
        shortfall=shortfall,
        gap=None,
        avg_like_code=None,
        spread=_half(interval),
        adapted_spread=_half(adapted_interval),
    )


def _half(interval: tuple[float, float]) -> float:
    return (interval[1] - interval[0]) / 2
