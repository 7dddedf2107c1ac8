"""One cell for several runs that differ in their seed alone: the mean, and how far it may be trusted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from robustforge.papers.compared import ComparedCell, judge
from robustforge.records.statistics import mean_interval


def over_runs(each: Mapping[str, ComparedCell], metric: str, partial: bool) -> ComparedCell:
    """One cell of a row that averages several runs; it keeps the cell of each in ``by_run``.

    Args:
        each: the cell of each run, at least one.
        metric: what the numbers are.
        partial: average over those that were run; False: the cell is missing where one of them is.
    """
    made = {run: cell for run, cell in each.items() if cell.ours is not None}
    counted = list((made if partial and made else each).values())
    return replace(counted[0] if len(counted) == 1 else averaged(counted, metric), by_run=made)


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
        violated=_union(cell.violated for cell in cells),
        adapted_violated=_union(cell.adapted_violated for cell in cells),
        adapted_verdict=cells[0].adapted_verdict if len({cell.adapted_verdict for cell in cells}) == 1 else "",
    )


def _union(names: Iterable[Sequence[str]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for some in names for name in some))


def _half(interval: tuple[float, float]) -> float:
    return (interval[1] - interval[0]) / 2
