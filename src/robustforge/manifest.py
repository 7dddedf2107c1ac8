"""Stored files and their hashes: what was damaged is found before it is used, said, and set aside.

A file is hashed once a process: as long as its size and dates stay, its hash is remembered. That is 0.4 to 2 GB/s,
depending on whether the processor knows SHA-256.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from robustforge.files import sha256_of
from robustforge.types import DamagedError

log = logging.getLogger(__name__)
MANIFEST = "manifest.json"  # of a stored product

_Identity = tuple[int, int, int, int, int]
_known: dict[_Identity, str] = {}  # hashes by the identity of the file, which renaming its folder does not change


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, 64 hexadecimal digits; remembered until its size or one of its dates changes.

    Raises:
        OSError: it cannot be read.
    """
    state = path.stat()
    identity = state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns
    if identity not in _known:
        _known[identity] = sha256_of(path)
    return _known[identity]


def hashes(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """Name -> SHA-256 of files in a folder, for its manifest."""
    return {name: file_hash(folder / name) for name in names}


def check_file(path: Path, wanted: Any) -> None:
    """Raises DamagedError unless the file is there and has the SHA-256 ``wanted``, or one of several."""
    try:
        found = file_hash(path)
    except OSError as error:
        raise DamagedError(f"'{path}' is missing or cannot be read ({error.strerror}).") from error
    if found not in ([wanted] if isinstance(wanted, str) else wanted):
        raise DamagedError(f"'{path}' is damaged: its content is not what was written there.")


def check_files(folder: Path, files: Any, manifest: Path) -> None:
    """Raises DamagedError unless every file that a manifest names is there and unchanged.

    Args:
        folder: of the files.
        files: the manifest's names and hashes, which are not believed either: names of files in ``folder`` alone.
        manifest: for the message.
    """
    if not isinstance(files, Mapping) or not files:
        raise DamagedError(f"'{manifest}' is damaged: it names no files.")
    for name, digest in files.items():
        if not re.fullmatch(r"[\w-][\w.-]*", name) or not isinstance(digest, str):
            raise DamagedError(f"'{manifest}' is damaged: {name!r} is no file of its folder with a hash.")
        check_file(folder / name, digest)


def read_object(path: Path) -> dict[str, Any]:
    """A JSON file that holds one object.

    Raises:
        DamagedError: it is missing, cut short, or holds something else.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DamagedError(f"'{path}' is damaged: it cannot be read as JSON ({error}).") from error
    if not isinstance(found, dict):
        raise DamagedError(f"'{path}' is damaged: it holds no JSON object.")
    return found


def set_aside(path: Path, reason: object) -> Path:
    """Renames a damaged file or folder to ``<name>.damaged-<n>``, says why, and returns its new place."""
    number = 1
    while (place := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    path.rename(place)
    log.warning("%s It is kept as %s and made again.", reason, place.name)
    return place
