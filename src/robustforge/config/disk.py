"""What the file system refuses, as one sentence: a full disk, a folder that cannot be written, a name too long."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator

_ELSEWHERE = "set paths.output_dir, paths.store_dir or hydra.run.dir to a folder that can be written"
_ADVICE = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f)",
    errno.EROFS: _ELSEWHERE,
    errno.EACCES: _ELSEWHERE,
    errno.EPERM: _ELSEWHERE,
    errno.ENOTDIR: _ELSEWHERE,
    errno.EEXIST: _ELSEWHERE,
    errno.EISDIR: _ELSEWHERE,
    errno.ENAMETOOLONG: "give shorter names (hydra.run.dir, paths.output_dir)",
    errno.EIO: "the disk may be broken",
    errno.ESTALE: "the network's file system has lost it",
    errno.EMFILE: "raise the number of open files (ulimit -n)",
}


def refused(error: BaseException) -> str | None:
    """One sentence about the file system's refusal behind an error, or None where it is another kind of error."""
    for one in _chain(error):
        number, path = _number(one), getattr(one, "filename2", None) or getattr(one, "filename", None)
        if number in _ADVICE:
            what = f"'{path}'" if path else "A file"
            return (
                f"{what} cannot be read or written ({os.strerror(number)}): {_ADVICE[number]}; the same command then "
                "continues."
            )
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _number(error: BaseException) -> int | None:
    if isinstance(error, OSError):
        return error.errno
    found = re.search(r"\(os error (\d+)\)", str(error))  # as safetensors writes it
    return int(found[1]) if found else None
