"""TensorBoard: what W&B shows, where TensorBoard has a place for it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
from lightning.pytorch.loggers import TensorBoardLogger

from robustforge.reporting.boards import CELLS, Chart, cell_rows, numbers
from robustforge.reporting.cases import Case
from robustforge.reporting.text import MISSING, markdown_table


def board(folder: Path, name: str) -> Any:
    """A writer for ``<folder>/tensorboard/<name>``."""
    return TensorBoardLogger(str(folder / "tensorboard"), name=name).experiment


def publish_result(
    folder: Path,
    result: Mapping[str, Any],
    found: Mapping[str, Chart],
    cases: Sequence[Case],
    figures: Iterable[Path],
) -> None:
    """Numbers as scalars, the table as text, curves as scalars over thousandths of their axis, images.

    Args:
        folder: of the run.
        result: content of ``result.json``.
        found: charts by name.
        cases: images, each one picture of all its parts side by side.
        figures: PNG files.
    """
    writer = board(folder, "result")
    for key, value in numbers(result).items():
        writer.add_scalar(key, value)
    publish_table(writer, "result", CELLS, cell_rows(result))
    publish_charts(writer, found)
    for case in cases:
        sides = [pixels if pixels.ndim == 3 else np.stack([pixels] * 3, -1) for pixels in case.images.values()]
        heights = max(len(side) for side in sides)
        strip = [np.pad(side, ((0, heights - len(side)), (0, 1), (0, 0)), constant_values=1.0) for side in sides]
        name = f"images/{case.number}_label_{case.label}_answer_{case.answer}_{case.outcome}"
        writer.add_image(name, np.clip(np.concatenate(strip, 1), 0, 1), dataformats="HWC")
    for path in figures:
        writer.add_image(path.stem, matplotlib.image.imread(path)[..., :3], dataformats="HWC")
    writer.flush()


def publish_tables(
    folder: Path,
    tables: Mapping[str, tuple[Sequence[str], Sequence[Sequence[Any]]]],
    found: Mapping[str, Chart],
    pictures: Iterable[Path],
    summary: Mapping[str, float],
) -> None:
    """What sums up several runs: see :func:`robustforge.cli.wandb_board.publish_tables`."""
    writer = board(folder, "summary")
    for name, (columns, rows) in tables.items():
        publish_table(writer, name, columns, rows)
    publish_charts(writer, found)
    for key, value in summary.items():
        writer.add_scalar(key, value)
    for path in pictures:
        writer.add_image(path.stem, matplotlib.image.imread(path)[..., :3], dataformats="HWC")
    writer.flush()


def publish_table(writer: Any, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """A table as Markdown."""
    words = [[MISSING if value is None else str(value) for value in row] for row in rows]
    writer.add_text(name, markdown_table(list(columns), words))


def publish_charts(writer: Any, found: Mapping[str, Chart]) -> None:
    """TensorBoard's axis holds whole numbers alone."""
    for name, chart in found.items():
        for line, (xs, ys) in chart.lines.items():
            for x, y in zip(xs, ys, strict=True):
                writer.add_scalar(f"{name}/{line}", y, global_step=round(1000 * x))


def replay(folder: Path, stage: str, rows: Iterable[Mapping[str, str]]) -> None:
    """Writes the curves of a stage that another run has trained."""
    writer = board(folder, stage)
    for row in rows:
        for name, value in row.items():
            if value and name not in ("step", "epoch"):
                writer.add_scalar(name, float(value), global_step=int(float(row.get("step") or 0)))
    writer.flush()
