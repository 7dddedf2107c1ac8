"""The training curves of several runs in one figure, for papers that print such figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from robustforge.papers.specification import CurveFigure, CurvePanel
from robustforge.reporting.figures.curves import Series, read_metrics
from robustforge.reporting.figures.style import LINES, color, drawing, save

SCALES = {"value": (0.0, 1.0), "percent": (0.0, 100.0), "error": (100.0, -100.0)}


def draw(figures: Sequence[CurveFigure], folder: Path) -> list[Path]:
    """Draws figures over the runs of a table.

    Args:
        figures: what they show.
        folder: of the table; each run has a folder in it.

    Returns:
        The files. A run without metrics is left out; a figure without any run is not drawn.
    """
    made = []
    for figure in figures:
        series = {label: _of_stage(folder / run, figure.stage) for label, run in figure.runs.items()}
        if any(series.values()):
            made.append(_draw(figure, series, folder / figure.file))
    return made


def _of_stage(run: Path, stage: str) -> Series:
    """Metrics of one stage without its name in front."""
    return {name.removeprefix(f"{stage}/"): epochs for name, epochs in read_metrics(run / "metrics" / stage).items()}


def _draw(figure: CurveFigure, series: Mapping[str, Series], path: Path) -> Path:
    """Colors belong to runs, also to those that are missing, so that figures of one table can be compared."""
    with drawing(4.4 * len(figure.panels), 3.4) as canvas:
        canvas.suptitle(figure.title, x=0.01, ha="left", fontsize=11, weight="bold")
        for axes, panel in zip(canvas.subplots(1, len(figure.panels), squeeze=False)[0], figure.panels, strict=True):
            for place, (label, metrics) in enumerate(series.items()):
                _lines(axes, panel, metrics, label, color(place))
            axes.set(title=panel.label, xlabel="epoch")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            if axes.lines:
                axes.legend(loc="best")
        return save(canvas, path)


def _lines(axes: Axes, panel: CurvePanel, series: Series, label: str, ink: str) -> None:
    offset, factor = SCALES[panel.scale]
    several = len(panel.metrics) > 1
    for place, metric in enumerate(panel.metrics):
        epochs = series.get(metric, {})
        if epochs:
            axes.plot(
                list(epochs),
                [offset + factor * value for value in epochs.values()],
                color=ink,
                label=f"{label}, {metric.replace('/', ' ').replace('_', ' ')}" if several else label,
                linestyle=LINES[place % len(LINES)],
                marker="o" if len(epochs) < 25 else None,
            )
