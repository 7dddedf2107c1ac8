"""The progress bars of an evaluation: cells, and images of the cell under way."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from robustforge.interruption import check
from robustforge.training import distributed


class CellProgress:
    """Two bars: cells done, and images of the cell under way with its accuracy so far.

    Args:
        cells: how many cells there are.
        quiet: show nothing.
    """

    def __init__(self, cells: int, quiet: bool) -> None:
        self._bars = Progress(
            TextColumn("{task.description:<42}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            disable=quiet,
        )
        self._cells = self._bars.add_task("evaluating: cells", total=cells, note="")
        self._images = self._bars.add_task("", total=0, note="")
        self._done = self._correct = 0
        self._started = 0.0

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def begin(self, label: str, images: int) -> None:
        """Starts the bar of a cell of ``images`` images."""
        self._done, self._correct, self._started = 0, 0, time.perf_counter()
        self._bars.reset(self._images, total=images, description=f"  {label}", note="")

    def advance(self, success: np.ndarray) -> None:
        """One more batch: (n,) whether the attack succeeded on each image of this process."""
        check()  # the end of a batch is where a signal counts whose exception was lost
        self._done += len(success)
        self._correct += int((~success).sum())
        done = self._done * distributed.world_size()
        speed = done / (time.perf_counter() - self._started)
        note = f"{100 * self._correct / self._done:.1f} % still correct, {speed:,.0f} images/s"
        self._bars.update(self._images, completed=done, note=note)

    def end(self) -> None:
        """The cell is finished."""
        self._bars.advance(self._cells)
