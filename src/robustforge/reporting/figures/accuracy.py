"""Figures of results: accuracy against budget, and accuracies side by side."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter

from robustforge.records.summary import WORST
from robustforge.records.table import CLEAN
from robustforge.reporting.figures.style import LINES, MARKERS, color, drawing, save
from robustforge.reporting.tables import Grid, Heading, run_grid
from robustforge.reporting.text import NORMS, budget, percent

Points = dict[float, Mapping[str, Any]]  # budget -> the cell that is lowest there


def security_curve(results: Mapping[str, Any] | Sequence[Mapping[str, Any]], path: str | Path) -> Path | None:
    """Accuracy against the budget: a line a surface (its strongest attack at each budget), bold the worst case.

    Args:
        results: one result, or several, whose names are then written before their systems.
        path: of the PNG.

    Returns:
        The file, or None where no system was attacked at two budgets.
    """
    results = [results] if isinstance(results, Mapping) else list(results)
    panels: dict[str, dict[tuple[str, str], Points]] = defaultdict(lambda: defaultdict(dict))
    for result in results:
        prefix = f"{result['name']}: " if len(results) > 1 else ""
        _collect(result, prefix, panels)
    kept = {norm: {key: p for key, p in lines.items() if _curve(p)} for norm, lines in panels.items()}
    kept = {norm: lines for norm, lines in kept.items() if lines}
    if not kept:
        return None
    systems = list(dict.fromkeys(system for lines in kept.values() for system, _ in lines))
    with drawing(6.4, 3.6 * len(kept)) as figure:
        for axes, (norm, lines) in zip(figure.subplots(len(kept), 1, squeeze=False)[:, 0], kept.items(), strict=True):
            _security_panel(axes, norm, lines, systems)
        return save(figure, path)


def _collect(result: Mapping[str, Any], prefix: str, panels: dict[str, dict[tuple[str, str], Points]]) -> None:
    """Adds a result's points; the clean accuracy is every line's point at budget 0."""
    clean = {(c["system"], c.get("rate")): c for c in result["cells"] if c["attack"] == CLEAN}
    for cell in [*result["cells"], *result["worst_case"]]:
        if cell["attack"] == CLEAN or cell["eps"] is None or cell["accuracy"] is None:
            continue
        surface = "worst case" if cell["attack"] == WORST else cell["surface"]
        rate = cell.get("rate")
        surface += "" if rate is None else f", {100 * rate:g} % FPR"
        points = panels[cell["norm"]][prefix + cell["system"], surface]
        if (cell["system"], rate) in clean:
            points[0.0] = clean[cell["system"], rate]
        before = points.get(cell["eps"])
        if before is None or cell["accuracy"] < before["accuracy"]:
            points[cell["eps"]] = cell


def _curve(points: Points) -> bool:
    return sum(eps > 0 for eps in points) > 1


def _security_panel(axes: Axes, norm: str, lines: dict[tuple[str, str], Points], systems: list[str]) -> None:
    surfaces = list(dict.fromkeys(surface for _, surface in lines if not surface.startswith("worst case")))
    for (system, surface), points in lines.items():
        worst = surface.startswith("worst case")
        place = 0 if worst else surfaces.index(surface) + 1
        eps, shade = sorted(points), color(systems.index(system))
        axes.plot(
            eps,
            [points[e]["accuracy"] for e in eps],
            label=f"{system}, {surface}",
            color=shade,
            linestyle=LINES[place % len(LINES)],
            marker=MARKERS[place % len(MARKERS)],
            linewidth=2.6 if worst else 1.2,
            alpha=1.0 if worst else 0.75,
            zorder=3 if worst else 2,
        )
        if worst:
            low, high = ([points[e]["interval"][k] for e in eps] for k in (0, 1))
            axes.fill_between(eps, low, high, color=shade, alpha=0.15, linewidth=0)
    axes.set_xticks(sorted({e for points in lines.values() for e in points}))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: budget(value, norm)))
    axes.tick_params(axis="x", rotation=30)
    axes.set(ylim=(-2, 102), xlabel=f"budget ({NORMS.get(norm, norm)}, pixels in [0, 1])", ylabel="accuracy (%)")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))


def accuracy_bars(result: dict[str, Any], path: str | Path) -> Path:
    """The table of one run as bars with Wilson's 95 % intervals. Horizontal, so that long names stay readable."""
    grid = run_grid(result)
    groups = [[s for s in grid.systems if _recorded(grid, s, heading)] for heading in grid.headings]
    bars = sum(map(len, groups))
    with drawing(6.8, 1.1 + 0.17 * bars + 0.12 * len(groups)) as figure:
        axes = figure.subplots()
        y, middles = 0.0, []
        for heading, systems in zip(grid.headings, groups, strict=True):
            middles.append(y + (len(systems) - 1) / 2)
            for system in systems:
                _bar(axes, y, grid.cells[system, heading], color(grid.systems.index(system)))
                y += 1
            y += 0.7
        axes.set_yticks(middles, [", ".join(heading) for heading in grid.headings])
        axes.set_ylim(y - 1, -0.8)
        axes.grid(axis="y", visible=False)
        axes.set(xlim=(0, 108), xticks=range(0, 101, 20), xlabel="accuracy (%)", title=str(result["name"]))
        patches = [Patch(color=color(k), label=system) for k, system in enumerate(grid.systems)]
        figure.legend(handles=patches, loc="outside lower center", ncols=min(4, len(patches)))
        return save(figure, path)


def _recorded(grid: Grid, system: str, heading: Heading) -> bool:
    cell = grid.cells.get((system, heading))
    return cell is not None and cell["accuracy"] is not None


def _bar(axes: Axes, y: float, cell: Mapping[str, Any], shade: str) -> None:
    value, (low, high) = cell["accuracy"], cell["interval"]
    axes.barh(y, value, 0.9, color=shade)
    # Wilson's interval is not symmetric, and rounding may leave an arm of -1e-15
    arms = [[max(0.0, value - low)], [max(0.0, high - value)]]
    axes.errorbar(value, y, xerr=arms, color="#444444", elinewidth=0.8)
    axes.text(high + 0.8, y, percent(value, cell["n"]), va="center", fontsize=7)
