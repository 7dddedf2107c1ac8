"""Several runs beside each other: leaderboard, paired differences, and what a sweep varied."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from textwrap import fill
from typing import Any

from matplotlib.axes import Axes

from robustforge.optional import optional
from robustforge.records.statistics import Outcomes, paired_difference, shared
from robustforge.records.summary import worst_outcomes
from robustforge.records.table import same_eps
from robustforge.reporting.figures.style import CLEAN_COLOR, LINES, WORST_COLOR, tip
from robustforge.reporting.headline import clean_cell, place, worst_cell
from robustforge.reporting.html.files import RunFiles
from robustforge.reporting.html.panels import WIDTH, differences_panel, figure
from robustforge.reporting.html.sections import View, duration, headline
from robustforge.reporting.html.svg import Drawer
from robustforge.reporting.seeds import AxisCurve, axis_curves
from robustforge.reporting.sweep import as_mapping, varied
from robustforge.reporting.text import half_width, percent, shortened

MOST_COMPARED = 12  # runs of which every pair is compared
MOST_AXES = 12  # figures along swept overrides
_PLACES = ("paths.", "hydra.", "logger", "trainer.enable", "report")  # overrides that say where, not what


def named(runs: Sequence[RunFiles]) -> list[RunFiles]:
    """Runs of a sweep called by what was varied, where that tells them apart; others keep their names."""
    given = [_overrides(run) for run in runs]
    keys = varied(given)
    names = [", ".join(f"{key.rpartition('.')[2]}={one.get(key, 'default')}" for key in keys) for one in given]
    if not all(given) or not keys or len(set(names)) < len(runs):
        return list(runs)
    return [replace(run, name=name) for run, name in zip(runs, names, strict=True)]


def rivals(board: Sequence[View]) -> bool:
    """Whether all rows are of one budget, data set and protocol, so that the highest is the best."""
    return len({(row["budget"], row["data"], row["protocol"]) for row in board}) == 1


def leaderboard(runs: Sequence[RunFiles]) -> list[View]:
    """One row a run, the highest worst case first; runs that nothing attacked come last."""
    rows = []
    for run in runs:
        result, worst = run.result, worst_cell(run.result)
        clean = clean_cell(result, rate=None if worst is None else worst["rate"])
        rows.append(
            {
                "run": run.name,
                "defense": result["defense"],
                "data": run.data,
                "protocol": str(result["protocol"]),
                "seed": result["seed"],
                "n": result["n_test"],
                "budget": "" if worst is None else place(worst),
                "clean": _cell(clean),
                "worst": _cell(worst),
                "head": headline(run),
                "violated": [] if worst is None else [name.replace("_", " ") for name in worst["violated"]],
                "backwards": None if worst is None else worst["backwards"],
                "seconds": result["seconds"],
                "time": duration(result["seconds"]),
            }
        )
    return sorted(rows, key=lambda row: -1.0 if row["worst"]["value"] is None else row["worst"]["value"], reverse=True)


def _cell(cell: Mapping[str, Any] | None) -> View:
    if cell is None or cell["accuracy"] is None:
        return {"value": None, "words": percent(None, 0), "half": ""}
    words = percent(cell["accuracy"], cell["n"])
    return {"value": cell["accuracy"], "words": words, "half": half_width(cell["interval"], cell["n"])}


def differences(runs: Sequence[RunFiles]) -> list[View]:
    """Worst case of one run minus another's at the same budget, on the test images that both saw.

    Runs on data that are known to be other data, or on another split, are not compared.
    """
    found: list[tuple[RunFiles, Mapping[str, Any], Outcomes]] = []
    for run in runs:
        worst = worst_cell(run.result)
        if worst is not None and run.records is not None and len(found) < MOST_COMPARED:
            eps = float("inf") if worst["eps"] is None else worst["eps"]
            with optional(f"differences of {run.name}"):
                right = worst_outcomes(run.records, worst["system"], worst["norm"], eps, rate=worst["rate"])
                found.append((run, worst, right))
    rows = []
    for one, mine, first in found:
        for other, theirs, second in found:
            if one is not other and _alike(one, other, mine, theirs) and len(shared(first, second)[0]):
                found_difference = paired_difference(first, second)
                rows.append(
                    {"first": one.name, "second": other.name, "attack": "worst_case", **asdict(found_difference)}
                )
    return rows


def _alike(one: RunFiles, other: RunFiles, mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> bool:
    same = one.environment.get("data") == other.environment.get("data") and one.result["split"] == other.result["split"]
    if None in (mine["eps"], theirs["eps"]):
        return same and mine["norm"] == theirs["norm"] and mine["eps"] == theirs["eps"]
    return same and mine["norm"] == theirs["norm"] and same_eps(mine["eps"], theirs["eps"])


def difference_figure(rows: Sequence[View], best: str, draw: Drawer) -> list[View]:
    """The best run against every other one."""
    shown = [
        {**one, "words": fill(f"minus {shortened(one['second'], 44)}", 24)} for one in rows if one["first"] == best
    ]
    if not shown:
        return []
    paint = partial(differences_panel, rows=shown)
    return figure(draw, f"{best} minus the others, worst case", WIDTH, 0.8 + 0.3 * len(shown), paint)


def _overrides(run: RunFiles) -> dict[str, str]:
    pairs = as_mapping(run.overrides)
    return {key: value for key, value in pairs.items() if not key.startswith(_PLACES)}


def sweep_figures(runs: Sequence[RunFiles], draw: Drawer) -> list[View]:
    """Clean accuracy and worst case along every axis of a sweep, seeds folded to mean and interval."""
    curves = axis_curves([(_overrides(run), _numbers(run)) for run in runs if run.overrides])
    return [
        {**one, "rows": list(_sweep_rows(curve))}
        for curve in curves[:MOST_AXES]
        for one in figure(draw, curve.title, WIDTH, 3.0, partial(_sweep_panel, curve=curve))
    ]


def _numbers(run: RunFiles) -> dict[str, float | None]:
    worst = worst_cell(run.result)
    cells = {"clean": clean_cell(run.result, rate=None if worst is None else worst["rate"]), "worst case": worst}
    return {name: None if cell is None else cell["accuracy"] for name, cell in cells.items()}


def _sweep_rows(curve: AxisCurve) -> Iterator[View]:
    for value, found in sorted(curve.points.items(), key=lambda item: (_number(item[0]) or 0.0, item[0])):
        folded = {name: asdict(one) for name, one in found.items()}
        yield {"value": value, "seeds": max((len(one.values) for one in found.values()), default=0), **folded}


def _sweep_panel(axes: Axes, curve: AxisCurve) -> None:
    names = list(curve.points)
    numbers = [_number(value) for value in names]
    plain = all(number is not None for number in numbers)
    at = [float(n) if plain and n is not None else float(k) for k, n in enumerate(numbers)]
    order = sorted(range(len(at)), key=at.__getitem__)
    for k, (what, shade) in enumerate((("clean", CLEAN_COLOR), ("worst case", WORST_COLOR))):
        line = [(at[i], names[i], curve.points[names[i]][what]) for i in order if what in curve.points[names[i]]]
        axes.plot(
            [x for x, _, _ in line], [one.mean for _, _, one in line], color=shade, linestyle=LINES[k], label=what
        )
        for x, name, one in line:
            axes.plot([x] * len(one.values), one.values, "_", color=shade, markersize=9)
            (dot,) = axes.plot([x], [one.mean], "o", color=shade, markersize=6)
            spread = "one seed"
            if one.low is not None and one.high is not None:
                spread = f"{len(one.values)} seeds, 95 % [{one.low:.1f}, {one.high:.1f}]"
                axes.plot([x, x], [one.low, one.high], color=shade, linewidth=1, alpha=0.7)
            tip(dot, f"{curve.axis}={name}, {what}: {one.mean:.1f} %, {spread}")
        if line:
            end = (line[-1][0], line[-1][2].mean)
            axes.annotate(what, end, (9, 0), textcoords="offset points", color=shade, va="center")
    positive = plain and min(at) > 0 and max(at) >= 8 * min(at)
    if positive:
        axes.set_xscale("log")
    axes.set_xticks(at, [shortened(name, 18) for name in names])
    axes.set_xticks([], minor=True)
    axes.margins(x=0.12)
    axes.set(ylim=(-2, 102), xlabel=curve.axis, ylabel="accuracy (%)")


def _number(text: str) -> float | None:
    """The number that an override's text is, also as a fraction; None for other texts."""
    try:
        first, _, second = text.partition("/")
        return float(first) / (float(second) if second else 1.0)
    except (ValueError, ZeroDivisionError):
        return None
