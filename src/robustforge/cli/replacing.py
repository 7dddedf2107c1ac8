"""A folder of results made again: the old one is there until the new one is finished."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(folder: Path, replace: bool) -> Iterator[Path]:
    """Gives the folder to write to, which takes the place of ``folder`` when the block ends without an error.

    Args:
        folder: that is wanted.
        replace: whether what is there now is replaced; else it is ``folder`` itself that is given.

    Yields:
        An empty place beside a folder that is replaced, else ``folder``.
    """
    fresh, old = (folder.with_name(f".{folder.name}.{word}") for word in ("new", "old"))
    if old.exists() and not folder.exists():  # killed between the two renames
        os.replace(old, folder)
    for left in (fresh, old):
        if left.exists():
            shutil.rmtree(left)
    if not (replace and folder.exists()):
        yield folder
        return
    yield fresh
    os.replace(folder, old)
    os.replace(fresh, folder)
    shutil.rmtree(old)
