"""The progress of an evaluation: bars on a terminal, a line a cell in a log file."""

from __future__ import annotations

import logging
from types import TracebackType
from typing import Self

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from robustforge.interruption import check
from robustforge.pace import Pace, duration
from robustforge.training import distributed

log = logging.getLogger(__name__)


class CellProgress:
    """Cells done, and images of the cell under way with its accuracy so far.

    On a terminal two bars; elsewhere a line at the end of each cell, and one every half minute in a long one.

    Args:
        cells: how many cells there are.
        quiet: show nothing.
    """

    def __init__(self, cells: int, quiet: bool) -> None:
        console = Console()
        self._lines = not quiet and not console.is_terminal
        self._bars = Progress(
            TextColumn("{task.description:<42}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=quiet or self._lines,
        )
        self._cells = self._bars.add_task("evaluating: cells", total=cells, note="")
        self._images = self._bars.add_task("", total=0, note="")
        self._all, self._one = Pace(cells), Pace(0)
        self._label, self._done, self._correct = "", 0, 0

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def begin(self, label: str, images: int) -> None:
        """Starts the bar of a cell of ``images`` images."""
        self._label, self._done, self._correct, self._one = label, 0, 0, Pace(images)
        self._bars.reset(self._images, total=images, description=f"  {label}", note="")

    def advance(self, lost: np.ndarray) -> None:
        """One more batch: (n,) whether each image of this process is lost, to this attack or to an earlier one."""
        check()  # the end of a batch is where a signal counts whose exception was lost
        self._done += len(lost)
        self._correct += int((~lost).sum())
        self._one.done = done = self._done * distributed.world_size()
        note = f"{self._accuracy()}, {done / self._one.seconds:,.0f} images/s"
        self._bars.update(self._images, completed=done, note=note)
        if self._lines and done < self._one.total and self._one.due():
            self._say(f"{done:,} of {self._one.total:,.0f} images", note, self._one.left())

    def end(self) -> None:
        """The cell is finished."""
        self._bars.advance(self._cells)
        self._all.done += 1
        if self._lines:
            how = (self._accuracy(), duration(self._one.seconds)) if self._done else ("measured before",)
            self._say(*how, self._all.left(), finished=True)

    def _accuracy(self) -> str:
        return f"{100 * self._correct / self._done:.1f} % still correct"

    def _say(self, *words: str, finished: bool = False) -> None:
        number = self._all.done + (0 if finished else 1)
        log.info("cell %d/%d %s: %s", number, self._all.total, self._label, ", ".join(filter(None, words)))
