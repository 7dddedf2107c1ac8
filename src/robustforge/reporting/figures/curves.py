"""Training curves from the CSV files of Lightning's logger."""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path
from textwrap import fill

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from robustforge.optional import optional
from robustforge.reporting.figures.style import LINES, MOST_LINES, color, drawing, save, side_labels, tip

Series = dict[str, dict[int, float]]  # metric -> epoch -> mean over the rows of that epoch

Panels = dict[str, dict[str, dict[int, float]]]  # title -> line -> epoch -> value

ACCURACY, SHARES, ANGLES = "accuracy (%)", "shares (%)", "angle (degrees)"
HEIGHT = 2.3  # inches of a panel
_SPLITS = ("val", "train", "test")
_SKIPPED = ("lr", "learning_rate", "epoch", "step", "seconds", "time")


def read_metrics(stage_dir: str | Path) -> Series:
    """Merges all ``version_k`` folders of a stage.

    A stage that was killed and resumed has several; where two hold the same epoch the later one counts, because the
    earlier epoch was cut short and run again.
    """
    versions = sorted(Path(stage_dir).glob("version_*"), key=lambda path: int(path.name.rpartition("_")[2]))
    merged: Series = defaultdict(dict)
    for version in versions:
        file = version / "metrics.csv"
        if file.is_file():
            for name, epochs in _read_csv(file).items():
                merged[name].update(epochs)
    # with on_step and on_epoch Lightning writes both; the epoch's own mean is the better one
    return {
        name.removesuffix("_epoch"): dict(sorted(epochs.items()))
        for name, epochs in merged.items()
        if not (name.endswith("_step") and f"{name.removesuffix('_step')}_epoch" in merged)
    }


def _read_csv(file: Path) -> Series:
    seen: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    with file.open(newline="", encoding="utf-8") as handle:
        for row in csv.DictReader(handle):
            if not row.get("epoch"):
                continue
            for name, value in row.items():
                if name not in ("epoch", "step") and value:
                    seen[name][int(float(row["epoch"]))].append(float(value))
    return {n: {e: sum(values) / len(values) for e, values in epochs.items()} for n, epochs in seen.items()}


def training_curves(run_dir: str | Path) -> list[Path]:
    """Draws one PNG a stage into ``figures/``; stages without metrics are left out, one that fails is a warning.

    Returns:
        The files, ``figures/training_<stage>.png``.
    """
    run_dir = Path(run_dir)
    made = []
    for stage in sorted(path for path in (run_dir / "metrics").glob("*") if path.is_dir()):
        with optional(f"figure training_{stage.name}"):
            panels = curve_panels(read_metrics(stage), stage.name)
            if panels:
                made.append(_draw(stage.name, panels, run_dir / "figures" / f"training_{stage.name}.png"))
    return made


def curve_panels(series: Series, stage: str) -> Panels:
    """Sorts metrics into panels: accuracies together, shares, angles; every loss and other quantity has its own.

    Learning rates and times are not shown.
    """
    panels: Panels = {ACCURACY: {}, "loss": {}, SHARES: {}, ANGLES: {}}
    for name, epochs in sorted(series.items(), key=lambda item: ("/val/" not in item[0], item[0])):
        parts = [part for part in name.split("/") if part != stage]
        if any(word in parts or parts[-1].startswith(f"{word}-") for word in _SKIPPED):
            continue
        split = next((part for part in parts if part in _SPLITS), _SPLITS[0])
        quantity = "/".join(part for part in parts if part not in _SPLITS).replace("_", " ")
        kind = _kind(parts[-1], split, list(epochs.values()))
        if kind is None:
            panels.setdefault(quantity, {})[split] = epochs
        else:
            percent = kind != ANGLES and max(epochs.values()) <= 1
            panels[kind][f"{split} {quantity}"] = {e: v * (100 if percent else 1) for e, v in epochs.items()}
    return {title: dict(list(lines.items())[:MOST_LINES]) for title, lines in panels.items() if lines}


def _kind(metric: str, split: str, values: list[float]) -> str | None:
    """The panel that a metric shares with others, or None where it has its own."""
    if "acc" in metric:
        return ACCURACY
    if metric.endswith("_angle"):
        return ANGLES
    between = split == "val" and min(values) >= 0 and max(values) <= 1
    return SHARES if between and not any(word in metric for word in ("error", "loss")) else None


def _draw(stage: str, panels: Panels, path: Path) -> Path:
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    with drawing(4.1 * columns, HEIGHT * rows + 0.4) as figure:
        figure.suptitle(f"Training: {stage}", x=0.01, ha="left", fontsize=11, weight="bold")
        grid = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes, (title, lines) in zip(grid, panels.items(), strict=False):
            curve_panel(axes, title, lines, HEIGHT)
        for axes in grid[len(panels) :]:
            axes.set_axis_off()
        return save(figure, path)


def curve_panel(axes: Axes, title: str, lines: dict[str, dict[int, float]], height: float) -> None:
    """One quantity over the epochs: on a logarithmic axis if positive and more than doubled, and no percentage."""
    labels = []
    for k, (name, epochs) in enumerate(lines.items()):
        values = list(epochs.values())
        marker = "o" if len(values) < 25 else None
        (line,) = axes.plot(list(epochs), values, color=color(k), linestyle=LINES[k % 4], marker=marker, markersize=3)
        tip(line, f"{name}: {values[0]:.4g} at first, {values[-1]:.4g} at last")
        short = name.removesuffix(f" {title}")
        labels.append((values[-1], fill(f"{short} {_short(values[-1])}", 20), color(k)))
    every = [value for epochs in lines.values() for value in epochs.values()]
    if title in (ACCURACY, SHARES):
        axes.set_ylim(-2, 102)
    elif title != ANGLES and min(every) > 0 and max(every) > 2 * min(every):
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1,) if max(every) > 50 * min(every) else (1, 2, 5)))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    else:
        axes.yaxis.set_major_locator(MaxNLocator(nbins=4))
    axes.set(title=title, xlabel="epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    side_labels(axes, labels, 0.62 * height)


def _short(value: float) -> str:
    return f"{value:.1f}" if 10 <= abs(value) < 1000 else f"{value:.3g}"
