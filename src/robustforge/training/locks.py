"""Two runs that want the same thing: the second waits, and says whom it waits for."""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from robustforge.training import distributed

log = logging.getLogger(__name__)
_SHOWN = 120  # characters of a command line


@contextmanager
def exclusive(path: Path, what: str) -> Iterator[None]:
    """Holds a lock that other runs respect, on this machine and on others that share the file system; rank 0 alone.

    The operating system releases it when its holder dies, however it dies.

    Args:
        path: of the lock; its folder is made. ``<path>.holder`` tells others who holds it.
        what: is locked, for the line that a waiting run logs.
    """
    if distributed.rank() != 0:
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    lock, holder = FileLock(path), path.with_name(f"{path.name}.holder")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.warning("waiting for %s, which another run is making: %s", what, _told(holder))
        started = time.perf_counter()
        lock.acquire()
        log.info("waited %.0f s for %s", time.perf_counter() - started, what)
    try:
        holder.write_text(json.dumps(_myself()), encoding="utf-8")
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def _myself() -> dict[str, str]:
    command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])
    shown = command if len(command) <= _SHOWN else f"{command[:_SHOWN]} ..."
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    return {"pid": str(os.getpid()), "host": socket.gethostname(), "since": since, "command": shown}


def _told(holder: Path) -> str:
    """Who holds a lock, as far as its holder has said."""
    try:
        told = json.loads(holder.read_text(encoding="utf-8"))
        return f"process {told['pid']} on {told['host']}, since {told['since']} ({told['command']})"
    except (OSError, ValueError, KeyError, TypeError):
        return f"it has not said who it is; the lock is {holder.with_suffix('')}"
