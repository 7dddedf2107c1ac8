"""What is left of a run's accuracy: every system in one line, and the attacks behind it by strength."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from robustforge.records.summary import WORST
from robustforge.records.table import CLEAN
from robustforge.reporting.figures.style import (
    CLEAN_COLOR,
    INK,
    MAIN_COLOR,
    MUTED,
    PAPER,
    WORST_COLOR,
    beside,
    drawing,
    save,
    tip,
)
from robustforge.reporting.headline import attacks_at, clean_cell, main_attack, number, place, title, worst_cell
from robustforge.reporting.text import percent, shortened

MOST_ATTACKS = 12  # rows of the PNG; the report shows more


def accuracy_figure(result: Mapping[str, Any], path: str | Path) -> Path:
    """Draws every system's clean and worst-case accuracy, and the defense under its attacks, the strongest first."""
    systems, attacks = systems_of(result), attack_rows(result, MOST_ATTACKS)
    heights = [0.5 + 0.3 * len(systems), 0.5 + 0.24 * len(attacks)]
    with drawing(6.8, 0.9 + sum(heights)) as figure:
        figure.suptitle(title(result), x=0.01, ha="left", fontsize=11, weight="bold")
        above, below = figure.subplots(2, 1, height_ratios=heights)
        systems_panel(above, result)
        above.set_title("clean and worst case, with 95 % intervals")
        attacks_panel(below, result, attacks)
        below.set_title(f"{result['defense']} under each attack, the strongest first")
        return save(figure, path)


def systems_of(result: Mapping[str, Any]) -> list[str]:
    """The rows of the result, as recorded."""
    return list(dict.fromkeys(cell["system"] for cell in result["cells"]))


def systems_panel(axes: Axes, result: Mapping[str, Any]) -> None:
    """One line a system: from its clean accuracy down to its worst case at the budget of the headline."""
    names = systems_of(result)
    headline = worst_cell(result)
    for y, name in enumerate(names):
        worst = worst_cell(result, name)
        clean = clean_cell(result, name, None if headline is None else headline["rate"])
        mine = name == result["defense"]
        if worst is not None and clean is not None and None not in (worst["accuracy"], clean["accuracy"]):
            axes.plot(
                [worst["accuracy"], clean["accuracy"]], [y, y], color=MUTED, linewidth=3.5 if mine else 1.5, zorder=1
            )
        if clean is not None and clean["accuracy"] is not None:
            _dot(axes, y, clean, CLEAN_COLOR, f"{name}, clean: {number(clean)}", hollow=True, side=1)
        if worst is not None and worst["accuracy"] is not None:
            _dot(axes, y, worst, WORST_COLOR, f"{name}, worst case {place(worst)}: {number(worst)}", side=-1)
    axes.set_yticks(range(len(names)), [shortened(name, 26) for name in names])
    for label, name in zip(axes.get_yticklabels(), names, strict=True):
        label.set_fontweight("bold" if name == result["defense"] else "normal")
    axes.set_ylim(len(names) - 0.4, -0.6)
    _percent_axis(axes, left=-18 if any(_low(worst_cell(result, name)) for name in names) else -9)
    axes.set_xlabel("accuracy (%): hollow clean, filled worst case")


def _low(cell: Mapping[str, Any] | None) -> bool:
    """Whether a number that is written left of its interval needs more room there."""
    return cell is not None and cell["accuracy"] is not None and cell["interval"][0] < 8


def attack_rows(result: Mapping[str, Any], most: int) -> list[tuple[str, Mapping[str, Any] | None]]:
    """(words, cell) a row: the worst case, the attacks by strength, at most ``most``, what is left out, and clean."""
    worst = worst_cell(result)
    clean = clean_cell(result, rate=None if worst is None else worst["rate"])
    if worst is None:
        return [] if clean is None else [("clean", clean)]
    attacks = attacks_at(result, worst)
    rows: list[tuple[str, Mapping[str, Any] | None]] = [("worst case", worst)]
    rows += [(f"{cell['attack']} on {cell['surface']}".replace("_", " "), cell) for cell in attacks[:most]]
    if len(attacks) > most:
        rows.append((f"and {len(attacks) - most} weaker ones", None))
    return rows if clean is None else [*rows, ("clean", clean)]


def attacks_panel(axes: Axes, result: Mapping[str, Any], rows: Sequence[tuple[str, Mapping[str, Any] | None]]) -> None:
    """One dot a row of :func:`attack_rows`, with its interval."""
    worst = worst_cell(result)
    main = None if worst is None else main_attack(result, worst)
    for y, (words, cell) in enumerate(rows):
        if cell is None or cell["accuracy"] is None:
            continue
        special = {WORST: WORST_COLOR, CLEAN: CLEAN_COLOR}
        shade = special.get(cell["attack"], MAIN_COLOR if cell is main else MUTED)
        _dot(
            axes, y, cell, shade, f"{words}: {number(cell)}, {cell['n']} images", hollow=cell["attack"] == CLEAN, side=1
        )
    axes.set_yticks(range(len(rows)), [shortened(words, 34) for words, _ in rows])
    for label, (_, cell) in zip(axes.get_yticklabels(), rows, strict=True):
        bold = cell is not None and cell["attack"] in (WORST, CLEAN)
        label.set(
            fontweight="bold" if bold else "normal", color=MAIN_COLOR if cell is not None and cell is main else INK
        )
    axes.set_ylim(len(rows) - 0.4, -0.6)
    _percent_axis(axes)
    axes.set_xlabel("accuracy (%)" + ("" if main is None else "; blue: the main attack"))


def _dot(
    axes: Axes, y: float, cell: Mapping[str, Any], shade: str, words: str, *, hollow: bool = False, side: int = 1
) -> None:
    """A number with its interval; ``side`` says where it is written."""
    low, high = cell["interval"]
    axes.plot([low, high], [y, y], color=shade, linewidth=1.2, zorder=2, solid_capstyle="butt")
    (dot,) = axes.plot(
        [cell["accuracy"]],
        [y],
        "o",
        markersize=6.5,
        markerfacecolor=PAPER if hollow else shade,
        markeredgecolor=shade,
        markeredgewidth=1.6,
        zorder=3,
    )
    tip(dot, words)
    beside(axes, percent(cell["accuracy"], cell["n"]), (high, y) if side > 0 else (low, y), side)


def _percent_axis(axes: Axes, left: float = -9) -> None:
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.set(xlim=(left, 109), xticks=range(0, 101, 20))
