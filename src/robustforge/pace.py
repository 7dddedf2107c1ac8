"""How long something takes: in words, what is left of it, and when to say so in a log file."""

from __future__ import annotations

import time

EVERY = 30.0  # seconds between two lines on the same thing


def duration(seconds: float) -> str:
    """A span of time as people say it.

    Example:
        >>> duration(4.2), duration(210), duration(7600)
        ('4.2 s', '3.5 min', '2.1 h')
    """
    if seconds < 90:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


class Pace:
    """Tells when a line is due, and how much time is left at the speed so far.

    Args:
        total: how much there is to do, in any unit.
        done: how much of it was done before.
    """

    def __init__(self, total: float, done: float = 0.0) -> None:
        self.total, self.first, self.done = total, done, done
        self.begun = self.told = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.perf_counter() - self.begun

    def left(self) -> str:
        """``about 3.5 min left``, or nothing as long as nothing is done."""
        new = self.done - self.first
        remaining = self.total - self.done
        return f"about {duration(self.seconds / new * remaining)} left" if new > 0 and remaining > 0 else ""

    def due(self) -> bool:
        """Whether the last line is long enough ago; it then counts as said."""
        now = time.perf_counter()
        if now - self.told < EVERY:
            return False
        self.told = now
        return True
