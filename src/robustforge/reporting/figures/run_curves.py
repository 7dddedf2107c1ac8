"""The training curves of several runs in one figure, for papers that print such figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from robustforge.reporting.figures.curves import Series, read_metrics
from robustforge.reporting.figures.style import LINES, color, drawing, save

SCALES = {"value": (0.0, 1.0), "percent": (0.0, 100.0), "error": (100.0, -100.0)}


def draw(figures: Sequence[Mapping[str, Any]], folder: str | Path) -> list[Path]:
    """Draws figures over the runs of a table.

    Args:
        figures: each with ``file`` (a PNG's name), ``title``, ``stage`` (whose metrics), ``runs`` (label -> run, a
            folder below ``folder``) and ``panels``. A panel has ``label``, ``metrics`` (``val/robust_accuracy``) and
            ``scale``: ``value`` (default), ``percent`` of a share, or ``error``, the percentage that it lacks.
        folder: of the table.

    Returns:
        The files. A run without metrics is left out; a figure without any run is not drawn.
    """
    folder = Path(folder)
    made = []
    for figure in figures:
        stage = str(figure["stage"])
        series = {label: _of_stage(folder / run, stage) for label, run in figure["runs"].items()}
        found = {label: metrics for label, metrics in series.items() if metrics}
        if found:
            made.append(_draw(figure, found, list(series), folder / str(figure["file"])))
    return made


def _of_stage(run: Path, stage: str) -> Series:
    """Metrics of one stage without its name in front."""
    return {name.removeprefix(f"{stage}/"): epochs for name, epochs in read_metrics(run / "metrics" / stage).items()}


def _draw(figure: Mapping[str, Any], found: Mapping[str, Series], labels: Sequence[str], path: Path) -> Path:
    """Colors belong to runs, also to those that are missing, so that figures of one table can be compared."""
    panels = figure["panels"]
    with drawing(4.4 * len(panels), 3.4) as canvas:
        canvas.suptitle(str(figure["title"]), x=0.01, ha="left", fontsize=11, weight="bold")
        for axes, panel in zip(canvas.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            for label, series in found.items():
                _lines(axes, panel, series, label, color(labels.index(label)))
            axes.set(title=str(panel["label"]), xlabel="epoch")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            if axes.lines:
                axes.legend(loc="best")
        return save(canvas, path)


def _lines(axes: Axes, panel: Mapping[str, Any], series: Series, label: str, ink: str) -> None:
    offset, factor = SCALES[panel.get("scale", "value")]
    several = len(panel["metrics"]) > 1
    for place, metric in enumerate(panel["metrics"]):
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
