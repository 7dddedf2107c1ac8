"""A table's own numbers as lines over its rows, for papers that print such figures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from robustforge.papers.compared import ComparedCell
from robustforge.papers.specification import RowFigure
from robustforge.reporting.figures.style import LINES, MARKERS, color, drawing, save


def row_figure(figure: RowFigure, cells: Sequence[ComparedCell], path: Path) -> Path | None:
    """Draws one line a column of the figure, one point a row.

    Args:
        figure: what it shows.
        cells: of the table.
        path: of the PNG.

    Returns:
        The file, or None where no cell has a number yet.
    """
    found = {(cell.row, cell.column): cell.ours for cell in cells if cell.ours is not None}
    lines = {
        column: [(tick, found[row, column]) for tick, row in figure.rows.items() if (row, column) in found]
        for column in figure.columns
    }
    if not any(lines.values()):
        return None
    place = {tick: number for number, tick in enumerate(figure.rows)}
    with drawing(5.6, 3.6) as canvas:
        axes = canvas.subplots()
        for number, (column, points) in enumerate(lines.items()):
            axes.plot(
                [place[tick] for tick, _ in points],
                [value for _, value in points],
                label=column,
                color=color(number),
                linestyle=LINES[number % len(LINES)],
                marker=MARKERS[number % len(MARKERS)],
            )
        axes.set(title=figure.title, xlabel=figure.axis, xticks=list(place.values()))
        axes.set_xticklabels(list(place))
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        return save(canvas, path)
