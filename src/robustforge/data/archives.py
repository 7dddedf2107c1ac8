"""Bring-your-own arrays: .npz archives, read whole or, when they are large, mapped from the disk."""

from __future__ import annotations

import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np

from robustforge.types import UserError

NAMES = ("x_train", "y_train", "x_test", "y_test")
MAP_FROM_BYTES = 256 << 20
"""Arrays from this size on stay on the disk, when the archive stores them uncompressed (np.savez does)."""

UNREADABLE = (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error, struct.error)


def damaged(path: Path, error: Exception) -> UserError:
    """The message for a file that stops in the middle, or is not what its name says."""
    return UserError(f"'{path}' is truncated or damaged ({error}): delete it and fetch it again.")


def read_npz(path: Path, map_from_bytes: int = MAP_FROM_BYTES) -> dict[str, np.ndarray]:
    """Read ``x_train``, ``y_train``, ``x_test`` and ``y_test``.

    Args:
        path: a .npz archive.
        map_from_bytes: arrays at least this large are mapped copy-on-write, never written back.

    Raises:
        UserError: no such file, an unreadable one, or one with other array names.
    """
    if not path.is_file():
        raise UserError(
            f"'{path}' does not exist: set dataset.path to an .npz with the arrays x_train, y_train, x_test, y_test."
        )
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        missing = [name for name in NAMES if name not in members]
        if missing:
            raise UserError(
                f"'{path}' lacks {', '.join(missing)} (it holds {', '.join(sorted(members)) or 'nothing'}): "
                "save it with np.savez(path, x_train=..., y_train=..., x_test=..., y_test=...)."
            )
        return {name: _member(path, members[name], map_from_bytes) for name in NAMES}
    except UNREADABLE as error:
        raise damaged(path, error) from error


def _member(path: Path, info: zipfile.ZipInfo, map_from_bytes: int) -> np.ndarray:
    if info.compress_type != zipfile.ZIP_STORED or info.file_size < map_from_bytes:
        with np.load(path, allow_pickle=False) as archive:
            return archive[info.filename.removesuffix(".npy")]
    with path.open("rb") as handle:
        # A local header is 30 bytes, of which the last two pairs give the lengths of the name and the extra field.
        handle.seek(info.header_offset + 26)
        name_length, extra_length = struct.unpack("<HH", handle.read(4))
        handle.seek(name_length + extra_length, 1)
        version = np.lib.format.read_magic(handle)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read_header(handle)
        offset = handle.tell()
    return np.memmap(path, dtype, "c", offset, shape, order="F" if fortran else "C")
