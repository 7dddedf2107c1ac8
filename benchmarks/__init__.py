"""Measured comparisons: each module has ``run() -> list[BenchRow]``; ``scripts/bench.py <name>`` prints it."""

import sys
import time
from dataclasses import dataclass


@dataclass(frozen=True)
class BenchRow:
    """One measured comparison, both sides timed in one run.

    Attributes:
        name: what was compared.
        ours: our figure, in ``unit``.
        theirs: the other side's figure, in ``unit``.
        unit: for example images/s, or ms.
        ratio: ours / theirs.
        bar: what ``ratio`` must reach (or stay under, when ``higher_is_better`` is false).
        higher_is_better: direction of the bar.
        note: sample counts and settings.
        valid: whether the comparison is fair to the other side (such as: our attack is not the weaker one).
    """

    name: str
    ours: float
    theirs: float
    unit: str
    ratio: float
    bar: float
    higher_is_better: bool = True
    note: str = ""
    valid: bool = True

    @property
    def passed(self) -> bool:
        """Whether the bar is met, fairly."""
        return self.valid and (self.ratio >= self.bar if self.higher_is_better else self.ratio <= self.bar)


def say(what: str) -> None:
    """Tells on standard error what is being measured, with the time: some of it takes minutes."""
    print(f"{time.strftime('%H:%M:%S')} {what}", file=sys.stderr, flush=True)
