"""Temporary files of processes that were killed while they wrote."""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path

from robustforge.files import TEMPORARY

_NAME = re.compile(
    TEMPORARY.replace(".", r"\.").format(host="(?P<host>.+)", process=r"(?P<process>\d+)", digits="[0-9a-f]{12}")
)


def remove_leftovers(folder: Path) -> int:
    """Removes what dead processes of this machine left below ``folder``, and returns how many files that were.

    Files of other machines, which may share the folder, are left alone: nobody here knows who lives there.
    """
    here = socket.gethostname()[:64]
    removed = 0
    for path in folder.rglob(".*.tmp*"):
        found = _NAME.match(path.name)
        if found and found["host"] == here and not _alive(int(found["process"])):
            path.unlink(missing_ok=True)
            removed += 1
    return removed


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return True
