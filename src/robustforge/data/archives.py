"""Bring-your-own arrays: .npz archives, read whole or, when they are large, mapped from the disk."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path

import numpy as np

from robustforge.npz import UNREADABLE, checked_members, read_header, read_member
from robustforge.types import UserError

NAMES = ("x_train", "y_train", "x_test", "y_test")
MAP_FROM_BYTES = 256 << 20
"""Arrays from this size on stay on the disk, when the archive stores them uncompressed (np.savez does)."""

_SAVE = "np.savez(path, x_train=..., y_train=..., x_test=..., y_test=...)"


def damaged(path: Path, error: object) -> UserError:
    """The message for a file that stops in the middle, or is not what its name says."""
    return UserError(f"'{path}' is truncated or damaged ({error}): delete it and fetch it again.")


def read_npz(path: Path, map_from_bytes: int = MAP_FROM_BYTES) -> dict[str, np.ndarray]:
    """Read ``x_train``, ``y_train``, ``x_test`` and ``y_test``.

    Args:
        path: a .npz archive.
        map_from_bytes: arrays at least this large are mapped copy-on-write, never written back.

    Raises:
        UserError: no such file, an unreadable one, one with other array names, with Python objects, with an array whose
            header does not fit its size, or one that does not fit in memory.
    """
    if path.is_dir():
        raise UserError(f"'{path}' is a folder: use dataset=imagefolder for image files, or give an .npz archive.")
    if not path.is_file():
        raise UserError(
            f"'{path}' does not exist: set dataset.path to an .npz with the arrays x_train, y_train, x_test, y_test."
        )
    try:
        with path.open("rb") as handle:
            if handle.read(6) == b"\x93NUMPY":
                raise UserError(f"'{path}' holds a single array: save all four in one archive with {_SAVE}.")
        with zipfile.ZipFile(path) as archive:
            members = checked_members(path, archive)
            missing = [name for name in NAMES if name not in members]
            if missing:
                raise UserError(
                    f"'{path}' lacks {', '.join(missing)} (it holds {', '.join(sorted(members)) or 'nothing'}): "
                    f"save it with {_SAVE}."
                )
            return {name: _member(path, archive, members[name], map_from_bytes) for name in NAMES}
    except MemoryError as error:
        raise UserError(
            f"'{path}' does not fit in memory ({error}): save it uncompressed, with np.savez, so that it is mapped."
        ) from error
    except UserError:
        raise
    except UNREADABLE as error:
        raise damaged(path, error) from error


def _member(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo, map_from_bytes: int) -> np.ndarray:
    shape, fortran, dtype, start = read_header(archive, info)
    if dtype.hasobject:
        name = info.filename.removesuffix(".npy")
        advice = "with np.stack, after bringing the images to one size" if name.startswith("x") else "0 .. classes - 1"
        raise UserError(
            f"{name} of '{path}' holds pickled Python objects, which are never loaded: "
            f"store one array of numbers, {advice}."
        )
    if info.compress_type != zipfile.ZIP_STORED or info.file_size < map_from_bytes:
        return read_member(path, archive, info)
    if info.compress_size != info.file_size:
        raise damaged(path, f"the two sizes of {info.filename} differ")
    with path.open("rb") as handle:
        # A local header is 30 bytes, of which the last two pairs give the lengths of the name and the extra field.
        handle.seek(info.header_offset + 26)
        name_length, extra_length = struct.unpack("<HH", handle.read(4))
    offset = info.header_offset + 30 + name_length + extra_length + start
    return np.memmap(path, dtype, "c", offset, shape, order="F" if fortran else "C")
