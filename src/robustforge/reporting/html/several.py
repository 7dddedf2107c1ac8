"""Several runs beside each other: leaderboard, paired differences, and what a sweep varied."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from textwrap import fill
from typing import Any

from matplotlib.axes import Axes

from robustforge.optional import optional
from robustforge.records.statistics import Outcomes, mean_interval, paired_difference, shared
from robustforge.records.summary import worst_outcomes
from robustforge.records.table import same_eps
from robustforge.reporting.figures.style import CLEAN_COLOR, LINES, WORST_COLOR, tip
from robustforge.reporting.headline import clean_cell, place, worst_cell
from robustforge.reporting.html.files import RunFiles
from robustforge.reporting.html.panels import WIDTH, differences_panel, figure
from robustforge.reporting.html.sections import View, duration, headline
from robustforge.reporting.html.svg import Drawer
from robustforge.reporting.text import half_width, percent, shortened

MOST_COMPARED = 12  # runs of which every pair is compared
SEED = "seed"
_PLACES = ("paths.", "hydra.", "logger", "trainer.enable", "report")  # overrides that say where, not what


def named(runs: Sequence[RunFiles]) -> list[RunFiles]:
    """Runs of a sweep called by what was varied, where that tells them apart; others keep their names."""
    given = [_overrides(run) for run in runs]
    keys = dict.fromkeys(key for one in given for key in one)
    varied = [key for key in keys if len({one.get(key) for one in given}) > 1]
    names = [", ".join(f"{key.rpartition('.')[2]}={one.get(key, 'default')}" for key in varied) for one in given]
    if not all(given) or not varied or len(set(names)) < len(runs):
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
        data = run.settings.get("dataset")
        rows.append(
            {
                "run": run.name,
                "defense": result["defense"],
                "data": str(data.get("name", "")) if isinstance(data, Mapping) else "",
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


def axes_of(runs: Sequence[RunFiles]) -> list[str]:
    """The overrides that the runs of a sweep differ in, but for the seed."""
    given = [_overrides(run) for run in runs]
    keys = dict.fromkeys(key for one in given for key in one)
    return [k for k in keys if k != SEED and len({one.get(k) for one in given}) > 1]


def _overrides(run: RunFiles) -> dict[str, str]:
    pairs = (one.lstrip("+~").partition("=") for one in run.overrides)
    return {key: value for key, _, value in pairs if not key.startswith(_PLACES)}


def sweep_figures(runs: Sequence[RunFiles], draw: Drawer) -> list[View]:
    """Clean accuracy and worst case along every axis of a sweep, seeds folded to mean and interval."""
    swept = [run for run in runs if run.overrides]
    made: list[View] = []
    axes = axes_of(swept)
    for axis in axes:
        for others, part in _groups(swept, [key for key in axes if key != axis]).items():
            points = {value: runs_at for value, runs_at in _groups(part, [axis]).items() if runs_at}
            if len(points) > 1 and len(made) < 12:
                fixed = ", ".join(f"{k}={v}" for k, v in others)
                title = f"{axis}" + (f", where {fixed}" if fixed else "")
                folded = {value[0][1]: _folded(runs_at) for value, runs_at in points.items()}
                made += [
                    {**one, "rows": list(_sweep_rows(folded))}
                    for one in figure(draw, title, WIDTH, 3.0, partial(_sweep_panel, axis=axis, folded=folded))
                ]
    return made


def _groups(runs: Sequence[RunFiles], keys: Sequence[str]) -> dict[tuple[tuple[str, str], ...], list[RunFiles]]:
    groups: dict[tuple[tuple[str, str], ...], list[RunFiles]] = {}
    for run in runs:
        given = _overrides(run)
        groups.setdefault(tuple((key, given.get(key, "default")) for key in keys), []).append(run)
    return groups


def _folded(runs: Sequence[RunFiles]) -> dict[str, list[float]]:
    """Accuracies of the runs that differ in their seeds alone, by what they are."""
    found: dict[str, list[float]] = {"clean": [], "worst case": []}
    for run in runs:
        worst = worst_cell(run.result)
        cells = {"clean": clean_cell(run.result, rate=None if worst is None else worst["rate"]), "worst case": worst}
        for name, cell in cells.items():
            if cell is not None and cell["accuracy"] is not None:
                found[name].append(cell["accuracy"])
    return {name: values for name, values in found.items() if values}


def _sweep_rows(folded: Mapping[str, Mapping[str, list[float]]]) -> Iterator[View]:
    for value, found in sorted(folded.items(), key=lambda item: (_number(item[0]) or 0.0, item[0])):
        row: View = {"value": value, "seeds": max(map(len, found.values()), default=0)}
        for name, values in found.items():
            row[name] = _mean(values)
        yield row


def _mean(values: Sequence[float]) -> View:
    if len(values) < 2:
        return {"mean": values[0], "low": None, "high": None}
    mean, (low, high) = mean_interval(values)
    return {"mean": mean, "low": low, "high": high}


def _sweep_panel(axes: Axes, axis: str, folded: Mapping[str, Mapping[str, list[float]]]) -> None:
    numbers = [_number(value) for value in folded]
    plain = all(number is not None for number in numbers)
    at = [float(n) if plain and n is not None else float(k) for k, n in enumerate(numbers)]
    order = sorted(range(len(at)), key=at.__getitem__)
    names = list(folded)
    for k, (what, shade) in enumerate((("clean", CLEAN_COLOR), ("worst case", WORST_COLOR))):
        kept = [i for i in order if folded[names[i]].get(what)]
        means = [_mean(folded[names[i]][what]) for i in kept]
        axes.plot([at[i] for i in kept], [m["mean"] for m in means], color=shade, linestyle=LINES[k], label=what)
        for i, mean in zip(kept, means, strict=True):
            values = folded[names[i]][what]
            axes.plot([at[i]] * len(values), values, "_", color=shade, markersize=9)
            (dot,) = axes.plot([at[i]], [mean["mean"]], "o", color=shade, markersize=6)
            spread = (
                "one seed"
                if mean["low"] is None
                else f"{len(values)} seeds, 95 % [{mean['low']:.1f}, {mean['high']:.1f}]"
            )
            tip(dot, f"{axis}={names[i]}, {what}: {mean['mean']:.1f} %, {spread}")
            if mean["low"] is not None:
                axes.plot([at[i], at[i]], [mean["low"], mean["high"]], color=shade, linewidth=1, alpha=0.7)
        if kept:
            axes.annotate(
                what, (at[kept[-1]], means[-1]["mean"]), (9, 0), textcoords="offset points", color=shade, va="center"
            )
    positive = plain and min(at) > 0 and max(at) >= 8 * min(at)
    if positive:
        axes.set_xscale("log")
    axes.set_xticks(at, [shortened(name, 18) for name in names])
    axes.set_xticks([], minor=True)
    axes.margins(x=0.12)
    axes.set(ylim=(-2, 102), xlabel=axis, ylabel="accuracy (%)")


def _number(text: str) -> float | None:
    """The number that an override's text is, also as a fraction; None for other texts."""
    try:
        first, _, second = text.partition("/")
        return float(first) / (float(second) if second else 1.0)
    except (ValueError, ZeroDivisionError):
        return None
