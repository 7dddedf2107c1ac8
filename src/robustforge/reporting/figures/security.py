"""Accuracy against the budget: at most six lines a norm, each with its name at its end."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from robustforge.records.summary import WORST
from robustforge.records.table import CLEAN
from robustforge.reporting.figures.style import LINES, MARKERS, MOST_LINES, color, drawing, save, side_labels, tip
from robustforge.reporting.headline import number, title
from robustforge.reporting.text import NORMS, budget

Points = dict[float, Mapping[str, Any]]  # budget -> the cell that is lowest there
HEIGHT = 3.3  # inches of a panel


def security_curve(results: Mapping[str, Any] | Sequence[Mapping[str, Any]], path: str | Path) -> Path | None:
    """Accuracy against the budget: worst cases in bold, and of the defense its main and its strongest surface.

    Args:
        results: one result, or several, whose worst cases are then compared.
        path: of the PNG.

    Returns:
        The file, or None where no system was attacked at two budgets.
    """
    results = [results] if isinstance(results, Mapping) else list(results)
    panels = security_panels(results)
    if not panels:
        return None
    with drawing(6.6, HEIGHT * len(panels) + 0.5) as figure:
        figure.suptitle(title(results[0]) if len(results) == 1 else "worst cases", x=0.01, ha="left", weight="bold")
        for axes, (norm, lines) in zip(
            figure.subplots(len(panels), 1, squeeze=False)[:, 0], panels.items(), strict=True
        ):
            security_panel(axes, norm, lines, HEIGHT)
        return save(figure, path)


def security_panels(results: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Points]]:
    """Lines by norm and name, at most ``MOST_LINES`` a norm; norms without a second budget are left out."""
    panels: dict[str, dict[str, Points]] = {}
    for norm in dict.fromkeys(cell["norm"] for result in results for cell in result["worst_case"]):
        lines: dict[str, Points] = {}
        for result in results:
            prefix = f"{result['name']}: " if len(results) > 1 else ""
            found = _lines(result, norm, only_worst=len(results) > 1)
            lines |= {prefix + name: points for name, points in found.items() if sum(eps > 0 for eps in points) > 1}
        if lines:
            panels[norm] = dict(list(lines.items())[:MOST_LINES])
    return panels


def _lines(result: Mapping[str, Any], norm: str, only_worst: bool) -> dict[str, Points]:
    """The worst case of the defense, its end-to-end and its weakest surface, and the other rows' worst cases."""
    defense = result["defense"]
    found: dict[str, Points] = {}
    surfaces: dict[str, Points] = defaultdict(dict)
    for cell in [*result["worst_case"], *result["cells"]]:
        if cell["norm"] != norm or cell["attack"] == CLEAN or None in (cell["eps"], cell["accuracy"]):
            continue
        rate = "" if cell["rate"] is None else f", {100 * cell['rate']:g} % FPR"
        if cell["attack"] == WORST:
            found.setdefault(f"{cell['system']} worst case{rate}", {})[cell["eps"]] = cell
        elif cell["system"] == defense:
            points = surfaces[f"{cell['surface'].replace('_', ' ')}{rate}"]
            if cell["eps"] not in points or cell["accuracy"] < points[cell["eps"]]["accuracy"]:
                points[cell["eps"]] = cell
    mine = {name: points for name, points in found.items() if name.startswith(f"{defense} ")}
    if not only_worst:
        weakest = sorted(surfaces, key=lambda name: min(cell["accuracy"] for cell in surfaces[name].values()))
        shown = [name for name in surfaces if name.startswith("end to end")] + weakest[:1]
        mine |= {f"{defense}, {name}": surfaces[name] for name in dict.fromkeys(shown) if len(surfaces) > 1}
        mine |= found
    clean = {(c["system"], c["rate"]): c for c in result["cells"] if c["attack"] == CLEAN}
    for points in mine.values():
        one = next(iter(points.values()))
        if (one["system"], one["rate"]) in clean:
            points[0.0] = clean[one["system"], one["rate"]]
    return mine


def security_panel(axes: Axes, norm: str, lines: Mapping[str, Points], height: float) -> None:
    """One norm; every line is named at its end."""
    labels = []
    for k, (name, points) in enumerate(lines.items()):
        eps, worst = sorted(points), "worst case" in name
        shade = color(k)
        values = [points[e]["accuracy"] for e in eps]
        axes.plot(eps, values, color=shade, linestyle=LINES[k % 4], linewidth=2.4 if worst else 1.3, zorder=3)
        for e, value in zip(eps, values, strict=True):
            (dot,) = axes.plot([e], [value], MARKERS[k % len(MARKERS)], color=shade, markersize=5, zorder=4)
            tip(dot, f"{name}, {'clean' if e == 0 else budget(e, norm)}: {number(points[e])}")
        if worst:
            low, high = ([points[e]["interval"][side] for e in eps] for side in (0, 1))
            axes.fill_between(eps, low, high, color=shade, alpha=0.13, linewidth=0)
        labels.append((values[-1], name, shade))
    every = sorted({e for points in lines.values() for e in points})
    least = (every[-1] - every[0]) / 12
    ticks = [e for k, e in enumerate(every) if k == 0 or e - every[k - 1] >= least or k == len(every) - 1]
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: budget(value, norm)))
    if len(ticks) > 5:
        axes.tick_params(axis="x", rotation=30)
    axes.set(ylim=(-2, 102), xlabel=f"budget ({NORMS.get(norm, norm)}, pixels in [0, 1])", ylabel="accuracy (%)")
    side_labels(axes, labels, 0.72 * height)
