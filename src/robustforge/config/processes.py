"""Processes of our own beside each other: one that fails ends the others, and a signal reaches all of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import IO

from robustforge.interruption import Stopped
from robustforge.types import UserError

CHILD = "ROBUSTFORGE_CHILD"  # in the environment of what we start: the process above it speaks for all
_MISTAKE = 2
_ENDING, _CLOSING, _LOOK = 2.0, 25.0, 0.02  # seconds: after a failure; after a signal; between two looks


def is_child() -> bool:
    """Whether a process of ours started this one, and says how it ended."""
    return CHILD in os.environ


def command_of(module: str, arguments: Sequence[str]) -> list[str]:
    """The command that runs a module of ours in a fresh interpreter."""
    return [sys.executable, "-m", module, *arguments]


@dataclass
class _Member:
    """One process; what all but the first say on stderr is kept, because most of it would be said several times."""

    process: subprocess.Popen[bytes]
    said: IO[bytes] | None

    @property
    def code(self) -> int | None:
        """As a shell gives it, 128 + n for signal n; None while it runs."""
        found = self.process.poll()
        return None if found is None else found if found >= 0 else 128 - found


def run_together(commands: Sequence[Sequence[str]], environments: Sequence[Mapping[str, str]]) -> int:
    """Runs processes side by side until all have ended, or one has failed, which ends the others.

    Args:
        commands: program and arguments of each.
        environments: of each.

    Returns:
        0, or the exit code of the first that failed.

    Raises:
        UserError: the system starts no process.
        Stopped: a signal came; it was handed on, and all have ended.
    """
    with ExitStack() as stack:
        members: list[_Member] = []
        try:
            for command, environment in zip(commands, environments, strict=True):
                said = stack.enter_context(tempfile.TemporaryFile()) if members else None
                process = subprocess.Popen(command, env={**environment, CHILD: "1"}, stderr=said)
                members.append(_Member(process, said))
            failed = _wait_for_failure(members)
            _wait(members, _ENDING if failed else 0.0)
            _show(members, failed)
            return failed.code or 0 if failed else 0
        except (Stopped, KeyboardInterrupt) as stop:
            for member in members:
                member.process.send_signal(stop.signum if isinstance(stop, Stopped) else signal.SIGINT)
            _wait(members, _CLOSING)
            raise
        except OSError as error:
            raise UserError(
                f"Python cannot be started for a job or rank of this command ({error.strerror})."
            ) from error
        finally:
            for member in members:
                member.process.kill()  # does nothing to one that has ended
                member.process.wait()


def _wait_for_failure(members: Sequence[_Member]) -> _Member | None:
    """The first that fails, or None when all have ended well."""
    while True:
        codes = [member.code for member in members]
        failed = [member for member, code in zip(members, codes, strict=True) if code]
        if failed or None not in codes:
            return failed[0] if failed else None
        time.sleep(_LOOK)


def _wait(members: Sequence[_Member], seconds: float) -> None:
    """Until all have ended, but no longer than that."""
    end = time.monotonic() + seconds
    while any(member.code is None for member in members) and time.monotonic() < end:
        time.sleep(_LOOK)


def _show(members: Sequence[_Member], failed: _Member | None) -> None:
    """What the one that failed said, unless the first process made the same mistake and has said it already."""
    if failed is None or failed.said is None or failed.code == members[0].code == _MISTAKE:
        return
    failed.said.seek(0)
    sys.stderr.write(failed.said.read().decode(errors="replace"))
    sys.stderr.flush()
