"""ROC curves of a reproduced table: one panel a column of that metric, one curve a row."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from robustforge.records.abstention import roc
from robustforge.records.metrics import gather_detection
from robustforge.records.records import Records, read_records
from robustforge.reporting.figures.style import LINES, color, drawing, save

LEAST = 0.01  # percent: where the logarithmic axis of false alarms begins


def roc_figure(spec: Mapping[str, Any], results: Mapping[str, Any], path: Path) -> Path | None:
    """Draws what the table's ``auroc_flipped`` cells summarize.

    Args:
        spec: of the table; see ``compare``.
        results: by run: its records (anything that ``read_records`` takes), or what stands there for a run without.
        path: of the PNG.

    Returns:
        The file, or None where no row has records.
    """
    columns = [column for column in spec["columns"] if column.get("metric") == "auroc_flipped"]
    known: dict[str, Records] = {}
    for run, source in results.items():
        if source is not None and not (isinstance(source, Mapping) and "failed" in source):
            known[run] = read_records(source)
    rows = [row for row in spec["rows"] if row.get("run") in known]
    if not rows or not columns:
        return None
    with drawing(4.6 * len(columns) + 3.4, 4.4) as figure:
        for axes, column in zip(figure.subplots(1, len(columns), squeeze=False)[0], columns, strict=True):
            for place, row in enumerate(rows):
                _curve(axes, place, {**column, **row}, known[row["run"]])
            chance = np.geomspace(LEAST, 100, 100)  # a straight line would be one on linear axes only
            axes.plot(chance, chance, color="#bbbbbb", linewidth=0.8)
            axes.set(
                title=str(column["label"]),
                xlabel="clean images rejected (%)",
                ylabel="turned images rejected (%)",
                xscale="log",
                xlim=(LEAST, 100),
                ylim=(0, 101),
            )
            axes.legend(fontsize=6.5, loc="center left", bbox_to_anchor=(1.01, 0.5))
        return save(figure, path)


def _curve(axes: Axes, place: int, where: Mapping[str, Any], records: Records) -> None:
    seen = gather_detection(where, str(where.get("paper_surface", "end_to_end")), records)
    if seen is None or not len(seen.positive):
        return
    false, true = (100 * rates for rates in roc(seen.negative, seen.positive))
    axes.plot(
        false.clip(min=LEAST),
        true,
        drawstyle="steps-post",
        color=color(place),
        linestyle=LINES[place // 7 % len(LINES)],
        label=f"{where['label']} ({seen.auroc:.1f}, n = {len(seen.positive)})",
    )
