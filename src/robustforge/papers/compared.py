"""One cell of a reproduced table: the paper's number, ours, and the verdict on the two."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from robustforge.records.statistics import Difference

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
        violated: names of the indicators that speak against ``ours``.
        adapted_violated: likewise against ``adapted``.
        metric: what the numbers are, see :class:`robustforge.papers.specification.CellSpec`.
        adapted_verdict: what a strict protocol calls ``adapted`` (``robust accuracy``, ``unreliable`` ...), else empty.
        by_run: of a row that averages several runs, the cell of each that was run; else empty.
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
    violated: tuple[str, ...] = ()
    adapted_violated: tuple[str, ...] = ()
    adapted_verdict: str = ""
    metric: str = "accuracy"
    by_run: Mapping[str, ComparedCell] = field(default_factory=dict)


def judge(paper: float | None, ours: float | None, metric: str) -> tuple[float | None, str]:
    """(points short of the paper's number, the verdict in words)."""
    if paper is None or ours is None:
        return None, "no paper value"
    missing = ours - paper if metric in LOWER_IS_BETTER else paper - ours
    shortfall = max(0.0, missing)
    return shortfall, REACHED if shortfall <= TOLERANCE + 1e-9 else f"{shortfall:.2f} points short"
