"""Training curves from the CSV files of Lightning's logger."""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from robustforge.optional import optional
from robustforge.reporting.figures.style import LINES, color, drawing, save

Series = dict[str, dict[int, float]]  # metric -> epoch -> mean over the rows of that epoch

_TITLES = {"loss": "loss", "accuracy": "accuracy (%)", "angle": "angle (degrees)", "other": "other"}
_SPLITS = ("val", "train", "test")
_SKIPPED = ("lr", "epoch", "step", "seconds", "time")


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
            panels = _panels(read_metrics(stage))
            if panels:
                made.append(_draw(stage.name, panels, run_dir / "figures" / f"training_{stage.name}.png"))
    return made


def _panels(series: Series) -> dict[str, Series]:
    """Sorts metrics into panels; learning rates and times are not shown."""
    panels: dict[str, Series] = {kind: {} for kind in _TITLES}
    for name, epochs in sorted(series.items()):
        last = name.rpartition("/")[2]
        if any(last == word or last.startswith(f"{word}-") for word in _SKIPPED):
            continue
        panels[_kind(last)][name] = epochs
    return {kind: found for kind, found in panels.items() if found}


def _kind(metric: str) -> str:
    if "acc" in metric:
        return "accuracy"
    return "loss" if "loss" in metric else "angle" if metric.endswith("_angle") else "other"


def _draw(stage: str, panels: dict[str, Series], path: Path) -> Path:
    with drawing(4.4 * len(panels), 3.2) as figure:
        figure.suptitle(f"Training: {stage}", x=0.01, ha="left", fontsize=11, weight="bold")
        for axes, (kind, series) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
            _panel(axes, kind, series, stage)
        return save(figure, path)


def _panel(axes: Axes, kind: str, series: Series, stage: str) -> None:
    values = [value for epochs in series.values() for value in epochs.values()]
    scale = 100 if kind == "accuracy" and max(values) <= 1 else 1
    quantities: list[str] = []
    for name, epochs in series.items():
        parts = [part for part in name.split("/") if part != stage]
        quantity = "/".join(part for part in parts if part not in _SPLITS)
        if quantity not in quantities:
            quantities.append(quantity)
        split = next((part for part in parts if part in _SPLITS), _SPLITS[0])
        axes.plot(
            list(epochs),
            [scale * value for value in epochs.values()],
            label=f"{split} {quantity}".replace("_", " "),
            color=color(quantities.index(quantity)),
            linestyle=LINES[_SPLITS.index(split)],
            marker="o" if len(epochs) < 25 else None,
        )
    if kind == "loss" and min(values) > 0 and max(values) > 100 * min(values):
        axes.set_yscale("log")
    axes.set(title=_TITLES[kind], xlabel="epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(loc="best", ncols=1 if len(series) < 7 else 2)
