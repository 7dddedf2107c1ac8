"""Runs that differ in their seed alone, folded: means, how far they may be trusted, and curves along what was swept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from robustforge.records.statistics import mean_interval
from robustforge.reporting.sweep import Overrides, Summary, as_mapping, clean_and_worst, varied
from robustforge.reporting.text import MISSING

SEED = "seed"
MEASURES = ("clean", "worst case", "objective")
Place = tuple[tuple[str, str], ...]  # (override, value) pairs
Numbers = Mapping[str, float | None]  # of one run, by measure
Run = TypeVar("Run")


@dataclass(frozen=True)
class Folded:
    """One number over seeds, percent.

    Attributes:
        values: one a run.
        mean: of them.
        low: end of Student's 95 % interval; None for one run.
        high: its other end.
    """

    values: tuple[float, ...]
    mean: float
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        """Mean ± half of the interval."""
        if self.low is None or self.high is None:
            return f"{self.mean:.2f}"
        return f"{self.mean:.2f} ± {(self.high - self.low) / 2:.2f}"


def fold(values: Sequence[float | None]) -> Folded | None:
    """Mean and interval of one number of several runs; None where a run lacks it, or there is no run."""
    known = tuple(value for value in values if value is not None)
    if not known or len(known) < len(values):
        return None
    if len(known) == 1:
        return Folded(known, known[0])
    mean, (low, high) = mean_interval(known)
    return Folded(known, mean, low, high)


def grouped(
    runs: Sequence[tuple[Mapping[str, str], Run]], keys: Sequence[str], default: str = MISSING
) -> dict[Place, list[Run]]:
    """What is known of each run, by the values of some overrides, in the order of the runs.

    Args:
        runs: (overrides by key, anything) a run.
        keys: overrides to group by.
        default: shown for a run that does not set one of them.
    """
    groups: dict[Place, list[Run]] = {}
    for given, one in runs:
        groups.setdefault(tuple((key, given.get(key, default)) for key in keys), []).append(one)
    return groups


def swept(runs: Sequence[tuple[Mapping[str, str], Any]]) -> list[str]:
    """The overrides that runs differ in, but for the seed."""
    return [key for key in varied([given for given, _ in runs]) if key != SEED]


@dataclass(frozen=True)
class AxisCurve:
    """Measures along one swept override while the others stay.

    Attributes:
        axis: the override.
        fixed: the other swept overrides and their values.
        points: by value of the axis, then by measure, seeds folded.
    """

    axis: str
    fixed: Place
    points: Mapping[str, Mapping[str, Folded]]

    @property
    def title(self) -> str:
        """Axis and what stays."""
        return self.axis + (f", where {', '.join(f'{k}={v}' for k, v in self.fixed)}" if self.fixed else "")


def axis_curves(runs: Sequence[tuple[Mapping[str, str], Numbers]]) -> list[AxisCurve]:
    """A curve for every swept override and every setting of the others; lines of one point are left out.

    Args:
        runs: (overrides by key, numbers by measure) a run.
    """
    axes, found = swept(runs), []
    pairs = [(given, (given, numbers)) for given, numbers in runs]
    for axis in axes:
        for fixed, part in grouped(pairs, [key for key in axes if key != axis], "default").items():
            values = grouped(part, [axis], "default")
            if len(values) > 1:
                points = {place[0][1]: _folded(numbers) for place, numbers in values.items()}
                found.append(AxisCurve(axis, fixed, points))
    return found


def numbers_of(result: Mapping[str, Any]) -> dict[str, float | None]:
    """Clean accuracy, worst case and objective of a result."""
    cells = [None if cell is None else cell["accuracy"] for cell in clean_and_worst(result)]
    return dict(zip(MEASURES, [*cells, result["objective"]], strict=True))


def over_seeds(results: Sequence[tuple[Overrides, dict[str, Any] | None]]) -> Summary | None:
    """One row for all runs that differ in their seed alone.

    Args:
        results: (overrides, result) a run, see :func:`robustforge.reporting.sweep.summary_of_runs`.

    Returns:
        Columns: the other override keys that vary, how many seeds have a result, and mean ± half of Student's 95 %
        interval of clean accuracy, worst case and objective. None where no seed was varied.
    """
    runs = [(as_mapping(one), result) for one, result in results]
    if SEED not in varied([given for given, _ in runs]):
        return None
    keys, rows, failed = swept(runs), [], []
    for place, found in grouped(runs, keys).items():
        finished = [numbers_of(result) for result in found if result and "cells" in result]
        folded = _folded(finished)
        shown = [str(folded[name]) if name in folded else MISSING for name in MEASURES]
        rows.append([*(value for _, value in place), f"{len(finished)} of {len(found)}", *shown])
        failed.append(len(finished) < len(found))
    return Summary([*keys, "seeds", *MEASURES], rows, failed)


def folded_rows(results: Sequence[tuple[Overrides, dict[str, Any] | None]]) -> tuple[list[str], list[list[Any]]]:
    """The same as numbers: (columns, rows), with mean, low and high end of every measure, None where missing."""
    runs = [(as_mapping(one), result) for one, result in results]
    keys = swept(runs)
    columns = [*keys, "runs", "finished", *(f"{name}{end}" for name in MEASURES for end in ("", ", low", ", high"))]
    rows: list[list[Any]] = []
    for place, found in grouped(runs, keys).items():
        finished = [numbers_of(result) for result in found if result and "cells" in result]
        folded = _folded(finished)
        ends = [getattr(folded.get(name), end, None) for name in MEASURES for end in ("mean", "low", "high")]
        rows.append([*(value for _, value in place), len(found), len(finished), *ends])
    return columns, rows


def _folded(runs: Sequence[Numbers]) -> dict[str, Folded]:
    """Each measure that all of some runs have."""
    names = dict.fromkeys(name for numbers in runs for name in numbers)
    folded = {name: fold([numbers.get(name) for numbers in runs]) for name in names}
    return {name: one for name, one in folded.items() if one is not None}
