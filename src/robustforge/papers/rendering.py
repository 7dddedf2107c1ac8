"""A paper's table beside ours, as text, as data and as a picture."""

from __future__ import annotations

import csv
import io
import textwrap
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from rich.table import Table
from rich.text import Text

from robustforge.files import write_json, write_text
from robustforge.papers.compared import REACHED, ComparedCell
from robustforge.papers.lookup import COPIED, NOT_RUN
from robustforge.papers.stars import star, star_note
from robustforge.reporting.figures.style import drawing, save
from robustforge.reporting.text import MISSING, markdown_table, percent

CSV_COLUMNS = (
    "row", "column", "paper", "paper_surface", "ours", "ours_low", "ours_high", "adapted_surface", "adapted",
    "adapted_low", "adapted_high", "adapted_n", "gap", "gap_low", "gap_high", "avg_like_code", "n", "seed", "verdict",
    "shortfall", "violated", "adapted_violated", "reason", "adapted_reason", "statement",
)  # fmt: skip
LEGEND = (
    "Accuracy in percent. 'paper': as printed. 'ours': the paper's attack on the surface that its protocol attacks, in "
    "brackets the points still missing, ✓ where the paper's number is reached. 'adapted': the attack that knows the "
    "defense; worst case: per image over all recorded attacks of that budget, clean errors and rejections included. "
    "For an undefended model, fewer points than the paper's mean a stronger attack."
)
SPREAD = "±: mean over runs of several seeds, with half of Student's 95 % interval over them."
NO_PAPER_VALUE = "the paper prints no number"
LEFT_OUT = "paper; not run here"  # the one line of a row of which nothing was run


def render(cells: Sequence[ComparedCell], header_lines: Sequence[str] = ()) -> Table:
    """For the terminal: up to three lines a row (paper, ours, adapted).

    Args:
        cells: of ``compare``.
        header_lines: the title, then statements that belong to every number (profile, data, seeds).
    """
    below = "\n".join([LEGEND, *footnotes(cells)])
    table = Table(title=Text("\n".join(header_lines)), caption=Text(below), caption_justify="left")
    table.add_column("row", overflow="fold")
    table.add_column("attack", overflow="fold")
    for column in _columns(cells):
        table.add_column(column, justify="right", overflow="fold")
    for label, lines in _rows(cells):
        for k, (kind, values) in enumerate(lines):
            shown = [Text(words, style=_style(kind, cell)) for cell, words in values]
            table.add_row(label if k == 0 else "", kind, *shown, end_section=k == len(lines) - 1)
    return table


def write(cells: Sequence[ComparedCell], folder: str | Path, header_lines: Sequence[str] = ()) -> list[Path]:
    """Writes ``table.md``, ``table.csv``, ``table.json`` and ``table.png``; each carries the header lines.

    Returns:
        The four files, in that order.
    """
    folder = Path(folder)
    data = {"header": list(header_lines), "cells": [asdict(cell) for cell in cells]}
    return [
        write_text(folder / "table.md", _markdown(cells, header_lines)),
        write_text(folder / "table.csv", _csv(cells, header_lines)),
        write_json(folder / "table.json", data),
        _picture(cells, folder / "table.png", header_lines),
    ]


Line = tuple[str, list[tuple[ComparedCell, str]]]  # what the line shows, and its cells with their words


def by_row(cells: Sequence[ComparedCell]) -> dict[str, list[ComparedCell]]:
    """The cells of each row."""
    grouped: dict[str, list[ComparedCell]] = {}
    for cell in cells:
        grouped.setdefault(cell.row, []).append(cell)
    return grouped


def was_run(cells: Sequence[ComparedCell]) -> bool:
    """Whether anything of a row was run, or tried."""
    return any(cell.reason != NOT_RUN for cell in cells)


def _columns(cells: Sequence[ComparedCell]) -> list[str]:
    return list(dict.fromkeys(cell.column for cell in cells))


def _notes(cells: Sequence[ComparedCell]) -> dict[str, int]:
    """Every reason for a missing number, numbered: a reason is too long for a cell."""
    reasons = [NO_PAPER_VALUE] if any(cell.paper is None for cell in cells) else []
    for mine in by_row(cells).values():
        if was_run(mine):
            reasons += [reason for cell in mine for reason in (cell.reason, cell.adapted_reason)]
    reasons = [reason for reason in reasons if reason not in ("", COPIED)]
    return {reason: k for k, reason in enumerate(dict.fromkeys(reasons), start=1)}


def footnotes(cells: Sequence[ComparedCell]) -> list[str]:
    """What stands below a table: what ± and a star are, and why numbers are missing."""
    spread = [SPREAD] if any(cell.spread is not None for cell in cells) else []
    stars = star_note(found for cell in cells for found in (cell.violated, cell.adapted_violated))
    return spread + stars + [f"{MISSING} [{k}] {reason}" for reason, k in _notes(cells).items()]


def _rows(cells: Sequence[ComparedCell]) -> list[tuple[str, list[Line]]]:
    """Rows in order, each with its lines; a row that is only copied from the paper, or was not run, has one line."""
    notes = _notes(cells)

    def words(value: float | None, n: int | None, reason: str, spread: float | None = None) -> str:
        shown = f"{MISSING} [{notes[reason]}]" if value is None else percent(value, n or 0)
        return shown if spread is None else f"{shown} ±{spread:.1f}"

    def own(cell: ComparedCell) -> str:
        return words(cell.ours, cell.n, cell.reason, cell.spread) + _mark(cell) + star(cell.violated)

    def adapted_to(cell: ComparedCell) -> str:
        shown = words(cell.adapted, cell.adapted_n, cell.adapted_reason, cell.adapted_spread)
        return shown + star(cell.adapted_violated)

    rows = []
    for label, mine in by_row(cells).items():
        lines: list[Line] = [("paper", [(cell, words(cell.paper, 1000, NO_PAPER_VALUE)) for cell in mine])]
        if mine[0].reason == COPIED:
            lines = [(COPIED, lines[0][1])]
        elif not was_run(mine):
            lines = [(LEFT_OUT, lines[0][1])]
        else:
            surface = mine[0].adapted_surface.replace("_", " ")
            lines.append((f"ours: {mine[0].paper_surface}", [(cell, own(cell)) for cell in mine]))
            lines.append((f"adapted: {surface}", [(cell, adapted_to(cell)) for cell in mine]))
        rows.append((label, lines))
    return rows


def _mark(cell: ComparedCell) -> str:
    return " ✓" if cell.verdict == REACHED else f" (-{cell.shortfall:.2f})" if cell.shortfall else ""


def _style(kind: str, cell: ComparedCell) -> str:
    if kind.startswith("ours"):
        return "green" if cell.verdict == REACHED else "dim" if cell.ours is None else "yellow"
    return "bold" if kind.startswith("adapted") else ""


def markdown_rows(cells: Sequence[ComparedCell]) -> tuple[list[str], list[list[str]]]:
    """(heading, rows) for :func:`robustforge.reporting.text.markdown_table`: up to three lines a row of the table."""
    rows = [
        [label if k == 0 else "", kind, *(words for _, words in values)]
        for label, lines in _rows(cells)
        for k, (kind, values) in enumerate(lines)
    ]
    return ["row", "attack", *_columns(cells)], rows


def _markdown(cells: Sequence[ComparedCell], header_lines: Sequence[str]) -> str:
    head = [f"### {header_lines[0]}", *header_lines[1:]] if header_lines else []
    seeds = sorted({cell.seed for cell in cells if cell.seed is not None})
    sizes = sorted({cell.n for cell in cells if cell.n is not None})
    facts = f"Test images: {', '.join(map(str, sizes)) or MISSING}; seeds: {', '.join(map(str, seeds)) or MISSING}."
    table = markdown_table(*markdown_rows(cells)).rstrip()
    return "\n\n".join([*head, table, LEGEND, *footnotes(cells), facts]) + "\n"


def _csv(cells: Sequence[ComparedCell], header_lines: Sequence[str]) -> str:
    """Long form, one line a cell; the statement is a column, so that it survives when files are joined."""
    out = io.StringIO()
    writer = csv.DictWriter(out, CSV_COLUMNS, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    for cell in cells:
        row: dict[str, Any] = {**asdict(cell), "statement": " | ".join(header_lines)}
        row["ours_low"], row["ours_high"] = cell.ours_interval or (None, None)
        row["adapted_low"], row["adapted_high"] = cell.adapted_interval or (None, None)
        row |= {name: "; ".join(row[name]) for name in ("violated", "adapted_violated")}
        row |= dict.fromkeys(("gap", "gap_low", "gap_high"))
        if cell.gap is not None:
            row |= {"gap": cell.gap.points, "gap_low": cell.gap.low, "gap_high": cell.gap.high}
        writer.writerow({k: f"{v:.4f}" if isinstance(v, float) else v for k, v in row.items()})
    return out.getvalue()


def _picture(cells: Sequence[ComparedCell], path: Path, header_lines: Sequence[str]) -> Path:
    """A heat table: the numbers stay readable, and a collapse under the adapted attack is seen from afar."""
    rows, columns = _rows(cells), _columns(cells)
    height = sum(1 + len(lines) for _, lines in rows)  # a row's label has a line of its own, above its numbers
    width = 2.2 + 0.98 * len(columns)
    above, below = (
        [p for t in texts for p in textwrap.wrap(t, int(14 * width))] for texts in (header_lines, footnotes(cells))
    )
    with drawing(width, 0.7 + 0.19 * (len(above) + len(below)) + 0.27 * height) as figure:
        figure.suptitle("\n".join(above), x=0.01, ha="left", fontsize=9)
        figure.supxlabel("\n".join(below), x=0.01, ha="left", fontsize=8)
        axes = figure.subplots()
        axes.set(xlim=(-0.5, len(columns) - 0.5), ylim=(height - 0.5, -0.5), yticks=[])
        axes.set_xticks(range(len(columns)), columns)
        axes.tick_params(length=0, labeltop=True, labelbottom=False)
        axes.grid(False)
        axes.spines[:].set_visible(False)
        _heat_rows(axes, rows)
        return save(figure, path)


def _heat_rows(axes: Axes, rows: list[tuple[str, list[Line]]]) -> None:
    y = 0
    for label, lines in rows:
        axes.text(-0.5, y + 0.1, label, va="center", fontsize=8, weight="bold")
        for k, (kind, values) in enumerate(lines, start=1):
            axes.text(-0.58, y + k, kind, va="center", ha="right", fontsize=8)
            for x, (cell, words) in enumerate(values):
                _heat_cell(axes, x, y + k, _value(kind, cell), words)
        y += 1 + len(lines)


def _value(kind: str, cell: ComparedCell) -> float | None:
    if kind in ("paper", COPIED, LEFT_OUT):
        return cell.paper
    return cell.ours if kind.startswith("ours") else cell.adapted


def _heat_cell(axes: Axes, x: int, y: int, value: float | None, words: str) -> None:
    """0 % dark, 100 % light: lightness alone carries the number, so that it also prints in gray."""
    face = "#f0f0f0" if value is None else colormaps["cividis"](0.1 + 0.85 * value / 100)
    axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=face, edgecolor="white"))
    ink = "#666666" if value is None else "white" if value < 45 else "black"
    axes.text(x, y, words, ha="center", va="center", fontsize=7.5, color=ink)
