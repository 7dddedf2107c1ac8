"""The figures of one run as the page shows them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from matplotlib.axes import Axes

from robustforge.optional import optional
from robustforge.reporting.figures.abstention_curves import coverage_panel, roc_panel, shown_cells
from robustforge.reporting.figures.accuracy import attack_rows, attacks_panel, systems_of, systems_panel
from robustforge.reporting.figures.curves import curve_panel, curve_panels
from robustforge.reporting.figures.security import security_panel, security_panels
from robustforge.reporting.figures.style import CLEAN_COLOR, MUTED, PAPER, WORST_COLOR, beside, tip
from robustforge.reporting.html.files import RunFiles
from robustforge.reporting.html.svg import Drawer
from robustforge.reporting.text import NORMS, budget, shortened

WIDTH = 4.4  # inches; readable on a phone, two beside each other on a desk
MOST_ATTACKS = 24
CURVE_MARGINS = (0.17, 0.2, 0.67, 0.95)
MOST_CURVES = 6  # panels of a stage: accuracies and losses first


def figure(
    draw: Drawer,
    what: str,
    width: float,
    height: float,
    paint: Callable[[Axes], None],
    margins: tuple[float, ...] | None = None,
) -> list[dict[str, Any]]:
    """A titled figure, or nothing with a warning where it fails."""
    with optional(f"figure {what}"):
        return [{"title": what, "svg": draw(width, height, paint, what, margins)}]
    return []


def result_figures(run: RunFiles, draw: Drawer, classes: Sequence[dict[str, Any]] = ()) -> list[dict[str, Any]]:
    """Clean and worst case, differences, security curves, classes, and last, being tallest, the attacks by strength."""
    result = run.result
    rows = attack_rows(result, MOST_ATTACKS)
    paint = partial(systems_panel, result=result)
    made = figure(draw, "Clean and worst case", WIDTH, 0.8 + 0.32 * len(systems_of(result)), paint)
    if result["comparisons"]:
        count = len(result["comparisons"])
        paint = partial(differences_panel, rows=[_difference(one) for one in result["comparisons"]])
        made += figure(draw, f"{result['defense']} compared with the other rows", WIDTH, 0.8 + 0.3 * count, paint)
    for norm, lines in security_panels([result]).items():
        words = f"Accuracy by budget, {NORMS.get(norm, norm)}"
        made += figure(draw, words, WIDTH, 3.2, partial(security_panel, norm=norm, lines=lines, height=3.2))
    made += class_figure(classes, draw)
    if len(rows) > 2:
        height = 0.8 + 0.23 * len(rows)
        paint = partial(attacks_panel, result=result, rows=rows)
        made += figure(draw, f"{result['defense']} under each attack", WIDTH, height, paint)
    return made


def _difference(one: Mapping[str, Any]) -> dict[str, Any]:
    what = "clean" if one["attack"] == "clean" else f"worst case {budget(one['eps'], one['norm'])}"
    rate = "" if one["rate"] is None else f", {100 * one['rate']:g} % FPR"
    return {**one, "words": f"minus {shortened(one['second'], 20)},\n{what}{rate}"}


def differences_panel(axes: Axes, rows: list[dict[str, Any]]) -> None:
    """Paired differences in points with their 95 % intervals; right of zero the first is better."""
    axes.axvline(0, color=MUTED, linewidth=1)
    for y, one in enumerate(rows):
        shade = WORST_COLOR if one["attack"] != "clean" else CLEAN_COLOR
        axes.plot([one["low"], one["high"]], [y, y], color=shade, linewidth=1.4)
        face = shade if one["low"] > 0 or one["high"] < 0 else PAPER
        (dot,) = axes.plot([one["points"]], [y], "o", markersize=6.5, markerfacecolor=face, markeredgecolor=shade)
        sure = f"{one['points']:+.1f} [{one['low']:+.1f}, {one['high']:+.1f}] points, {one['n']} shared images"
        tip(dot, f"{one['first']} minus {one['second']}: {sure}")
        end, side = (one["low"], -1) if one["points"] < 0 else (one["high"], 1)
        beside(axes, f"{one['points']:+.1f}", (end, y), side)
    axes.set_yticks(range(len(rows)), [one["words"] for one in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.margins(x=0.24)
    axes.set_xlabel("points, with 95 % interval; hollow: could be zero")


def rejection_figures(run: RunFiles, draw: Drawer) -> list[dict[str, Any]]:
    """Risk and coverage, and detection; nothing for a defense without a risk."""
    lines = [] if run.records is None else shown_cells(run.records, run.result)
    if not lines:
        return []
    made = figure(draw, "Risk and coverage", WIDTH, 3.2, partial(coverage_panel, lines=lines, height=2.6))
    if len(lines) > 1:
        made += figure(draw, "Detection (ROC)", WIDTH, 3.2, partial(roc_panel, lines=lines, height=2.6))
    return made


def class_figure(rows: Sequence[dict[str, Any]], draw: Drawer) -> list[dict[str, Any]]:
    """Clean and worst-case accuracy of every class, the weakest first."""
    if not rows or len(rows) > 40:
        return []
    return figure(draw, "By class, the weakest first", WIDTH, 0.8 + 0.23 * len(rows), partial(_classes, rows=rows))


def _classes(axes: Axes, rows: Sequence[dict[str, Any]]) -> None:
    for y, one in enumerate(rows):
        axes.plot(one["interval"], [y, y], color=WORST_COLOR, linewidth=1.2)
        (dot,) = axes.plot([one["worst"]], [y], "o", color=WORST_COLOR, markersize=6)
        tip(dot, f"class {one['label']}: {one['worst']:.1f} % in the worst case, {one['n']} images")
        if one["clean"] is not None:
            (dot,) = axes.plot(
                [one["clean"]], [y], "o", markerfacecolor=PAPER, markeredgecolor=CLEAN_COLOR, markersize=6
            )
            tip(dot, f"class {one['label']}: {one['clean']:.1f} % clean")
    axes.set_yticks(range(len(rows)), [f"class {one['label']}" for one in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.set(xlim=(-4, 104), xticks=range(0, 101, 20), xlabel="accuracy (%): hollow clean, filled worst case")


def training_figures(run: RunFiles, draw: Drawer) -> list[dict[str, Any]]:
    """The training curves, stage by stage; of one that was taken from the store, how it was trained elsewhere."""
    stages = []
    reused = {one.get("name") for one in run.result.get("stages", ()) if one.get("reused")}
    for stage, series in run.metrics.items():
        figures: list[dict[str, Any]] = []
        panels: list[tuple[str, Any]] = []
        with optional(f"training curves of {stage}"):
            panels = list(curve_panels(series, stage).items())
        for title, lines in panels[:MOST_CURVES]:
            paint = partial(_curve, lines=lines, name=title)
            figures += figure(draw, title, 3.7, 2.1, paint, CURVE_MARGINS)
        if figures:
            words = stage.replace("_", " ") + (", taken from the store" if stage in reused else "")
            stages.append({"stage": words, "figures": figures, "left": len(panels) - len(figures)})
    return stages


def _curve(axes: Axes, lines: Any, name: str) -> None:
    curve_panel(axes, name, lines, 2.1)
    axes.set_title("")  # the page has it
