"""ROC curves of a reproduced table: one curve a row, at most six in a panel."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import StrMethodFormatter

from robustforge.papers.specification import CellSpec, TableSpec
from robustforge.records.abstention import roc
from robustforge.records.metrics import gather_detection
from robustforge.records.table import Records
from robustforge.reporting.figures.style import LINES, MOST_LINES, color, drawing, save

LEAST = 0.01  # percent: where the logarithmic axis of false alarms begins


def roc_figure(spec: TableSpec, records: Mapping[str, Records], path: Path) -> Path | None:
    """Draws what the table's ``auroc_flipped`` cells summarize.

    Args:
        spec: of the table.
        records: by run; cells of a run without records are left out.
        path: of the PNG.

    Returns:
        The file, or None where no such cell has records.
    """
    found = [cell for cell in spec.cells if cell.metric == "auroc_flipped" and cell.run and cell.run[0] in records]
    panels: list[tuple[str, list[CellSpec]]] = []
    for column in dict.fromkeys(cell.column for cell in found):
        cells = [cell for cell in found if cell.column == column]
        panels += [(column, cells[first : first + MOST_LINES]) for first in range(0, len(cells), MOST_LINES)]
    if not panels:
        return None
    with drawing(4.4 * len(panels), 5.6) as figure:
        row = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
        for axes, (column, cells) in zip(row, panels, strict=True):
            for place, cell in enumerate(cells):
                _curve(axes, place, cell, records[cell.run[0]])
            chance = np.geomspace(LEAST, 100, 100)  # a straight line would be one on linear axes only
            axes.plot(chance, chance, color="#bbbbbb", linewidth=0.8)
            axes.set(
                title=column,
                xlabel="clean images rejected (%)",
                ylabel="turned images rejected (%)",
                xscale="log",
                xlim=(LEAST, 100),
                ylim=(0, 101),
            )
            axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axes.legend(fontsize=6.5, loc="upper center", bbox_to_anchor=(0.5, -0.14))
        return save(figure, path)


def _curve(axes: Axes, place: int, cell: CellSpec, records: Records) -> None:
    seen = gather_detection(cell.selection, records)
    if seen is None or not len(seen.positive):
        return
    false, true = (100 * rates for rates in roc(seen.negative, seen.positive))
    axes.plot(
        false.clip(min=LEAST),
        true,
        drawstyle="steps-post",
        color=color(place),
        linestyle=LINES[place % len(LINES)],
        label=f"{cell.row} ({seen.auroc:.1f}, n = {len(seen.positive)})",
    )
