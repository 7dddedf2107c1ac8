"""Files that can be trusted: written whole or not at all, plain JSON, hashes of content."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import socket
import uuid
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robustforge.npz import UNREADABLE, checked_members, read_header, read_member
from robustforge.types import DamagedError, UserError

# says whose it is, so that what a killed process left can be told from what a living one writes
TEMPORARY = ".{host}-{process}-{digits}.tmp"


def short_name(text: str, most: int = 120) -> str:
    """A text that may be part of a file's name: a long one is cut, and a hash of it keeps it apart from others.

    Args:
        text: of any length.
        most: bytes that are kept of it; file systems take 255 in all.
    """
    data = text.encode()
    if len(data) <= most:
        return text
    return f"{data[:most].decode(errors='ignore')}-{hashlib.sha256(data).hexdigest()[:8]}"


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path`` which becomes ``path`` only when the block ends without an error.

    Args:
        path: the file that is wanted; its folder is created.

    Yields:
        The temporary path to write to, with the same suffix. A reader therefore sees the old file, or the whole new
        one, or none.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    owner = {"host": socket.gethostname()[:64], "process": os.getpid(), "digits": uuid.uuid4().hex[:12]}
    temporary = path.with_name(f"{TEMPORARY.format(**owner)}{path.suffix[-32:]}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> Path:
    """Writes a text file whole or not at all, also when the machine loses power right afterwards."""
    path = Path(path)
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    return path


def write_json(path: str | Path, data: Any) -> Path:
    """Writes ``data`` (see :func:`plain`) as indented JSON, whole or not at all."""
    return write_text(path, json.dumps(plain(data), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def plain(value: Any) -> Any:
    """Turns numpy scalars, arrays, paths and dataclasses into plain JSON data; NaN and infinities become null.

    JSON has no NaN: a file that holds one cannot be read by a browser or by strict parsers.
    """
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, list | tuple | set):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int | bool) else str(value)


def write_arrays(path: Path, **arrays: Any) -> None:
    """Writes named arrays as ``.npz``, whole or not at all."""
    with atomic_write(path) as temporary:
        np.savez(temporary, **arrays)


def read_arrays(path: str | Path) -> dict[str, NDArray[Any]] | None:
    """The named arrays of an ``.npz`` file, or None where there is no such file; no pickle is loaded.

    Raises:
        DamagedError: it cannot be read.
    """
    path = Path(path)
    if not path.is_file():
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            members = checked_members(path, archive)
            for info in members.values():
                read_header(archive, info)
            return {name: read_member(path, archive, info) for name, info in members.items()}
    except UserError:
        raise
    except (*UNREADABLE, MemoryError) as error:
        raise DamagedError(f"'{path}' is damaged: {error}.") from error


def reserve(path: Path) -> None:
    """Gives a file the room on the disk that its size promises, before it is mapped into memory.

    A full disk is an error here. Later, at the first write to a page without room, it would be SIGBUS, which ends the
    process without a word.

    Raises:
        OSError: there is no room, with the file's name.
    """
    with path.open("r+b") as file:
        size = os.fstat(file.fileno()).st_size
        try:
            os.posix_fallocate(file.fileno(), 0, size)
        except AttributeError:  # macOS and Windows have no such call
            return
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):  # this file system cannot promise anything
                raise OSError(error.errno, error.strerror, str(path)) from error


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, or of all files of a folder with their relative names; 64 hexadecimal digits.

    Raises:
        FileNotFoundError: there is neither.
    """
    if path.is_dir():
        digest = hashlib.sha256()
        for file in sorted(entry for entry in path.rglob("*") if entry.is_file()):
            digest.update(f"{file.relative_to(path).as_posix()}\0{sha256_of(file)}\n".encode())
        return digest.hexdigest()
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
