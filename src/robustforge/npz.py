"""Archives of arrays (.npz) that are not believed: what they promise is checked before memory is taken for it."""

from __future__ import annotations

import math
import os
import struct
import zipfile
import zlib
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from robustforge.types import UserError

# RuntimeError: an encrypted archive, or a compression that Python does not know.
UNREADABLE = (OSError, EOFError, ValueError, KeyError, RuntimeError, zipfile.BadZipFile, zlib.error, struct.error)

RATIO = 1032
"""The most bytes that the deflate method makes out of one."""


class Header(NamedTuple):
    """What a member says of its array, and where in the member the numbers start."""

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype
    start: int


def checked_members(path: Path, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The members of an archive by name, without ``.npy``.

    Raises:
        UserError: a name that leads out of the archive's own folder, or a name that is there twice.
        ValueError: more bytes are promised than the file can hold.
    """
    size, found = path.stat().st_size, dict[str, zipfile.ZipInfo]()
    for info in archive.infolist():
        name = info.filename.removesuffix(".npy")
        for place in (PurePosixPath(info.filename), PureWindowsPath(info.filename)):
            if place.is_absolute() or place.drive or ".." in place.parts:
                raise UserError(f"'{path}' holds {info.filename!r}, a name that leads elsewhere: it is not opened.")
        if name in found:
            raise UserError(f"'{path}' holds two arrays named {name}: it is not opened.")
        if info.compress_size > size or info.file_size > RATIO * (info.compress_size + 1):
            raise ValueError(f"{info.filename} promises more than the file can hold")
        found[name] = info
    return found


def read_header(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Header:
    """The header of a member, whose promise is as large as the member is.

    Raises:
        ValueError: it is not.
    """
    with archive.open(info) as member:
        version = np.lib.format.read_magic(member)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(member)
        start = member.tell()
    if not dtype.hasobject and start + math.prod(shape) * dtype.itemsize != info.file_size:
        raise ValueError(f"the header of {info.filename} promises shape {list(shape)}, its size is another")
    return Header(shape, fortran, dtype, start)


def read_member(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> NDArray[np.generic]:
    """The array of a member whose header was read, whole; Python objects are refused.

    Raises:
        UserError: it is larger than this machine's memory.
    """
    if info.file_size > os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"):
        raise UserError(
            f"'{path}' does not fit in memory ({info.file_size / 2**30:.0f} GiB): save it uncompressed, with np.savez, "
            "so that it is mapped."
        )
    with archive.open(info) as member:
        array: NDArray[np.generic] = np.lib.format.read_array(member, allow_pickle=False)
    return array
