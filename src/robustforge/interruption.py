"""Signals that end a run become one exception, so that everything open is closed and the command can say what to do."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

# a terminal sends Ctrl-C to all processes of a command, and the one that started the others hands it on
_REPEATS = 2.0


class Stopped(BaseException):
    """A signal asked this process to end. No Exception, so that nothing that mends errors catches it.

    Args:
        signum: the signal's number.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum

    @property
    def code(self) -> int:
        """The exit code that a shell and a scheduler expect: 143 for SIGTERM, 130 for Ctrl-C."""
        return 128 + self.signum

    def __str__(self) -> str:
        return "Ctrl-C" if self.signum == signal.SIGINT else signal.Signals(self.signum).name


@dataclass
class _State:
    """What this process listens to, and what it has heard."""

    signals: tuple[int, ...] = ()
    heard: int | None = None
    when: float = 0.0


_state = _State()


@contextmanager
def listening(more: Sequence[int] = ()) -> Iterator[None]:
    """Inside the block SIGTERM, Ctrl-C and the signals ``more`` raise :class:`Stopped`; in the main thread only.

    Every file is written whole or not at all, so that the exception may come anywhere.

    Args:
        more: further signals, such as the one that SLURM sends before the time limit.

    Raises:
        Stopped: such a signal came.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = _state.signals, _state.heard, _state.when
    _state.signals, _state.heard = (signal.SIGTERM, signal.SIGINT, *more), None
    handlers = {number: signal.getsignal(number) for number in _state.signals}
    try:
        listen()
        yield
        check()
    finally:
        _state.signals, _state.heard, _state.when = before
        for number, handler in handlers.items():
            signal.signal(number, handler)


def listen() -> None:
    """Puts the handlers in place, again where a library has put its own before them.

    Lightning's, for one, notes SIGTERM, ends the training and leaves with exit code 0.
    """
    if threading.current_thread() is threading.main_thread():
        for number in _state.signals:
            signal.signal(number, _stop)


def check() -> None:
    """Raises :class:`Stopped` again where Python lost the first one: it ignores exceptions in finalizers."""
    if _state.heard is not None:
        raise Stopped(_state.heard)


def _stop(signum: int, frame: FrameType | None) -> None:
    if _state.heard is None:
        _state.heard, _state.when = signum, time.monotonic()
        raise Stopped(signum)
    if time.monotonic() - _state.when > _REPEATS:  # asked again, because closing what is open takes too long
        os._exit(128 + signum)
