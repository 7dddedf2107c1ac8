"""A folder of results made again: the old one is there until the new one is finished, or set aside."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from robustforge.config.dependence import composed_today
from robustforge.config.run_folder import differences

EARLIER = "earlier"  # beside a table's runs: those of other settings


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


def make_way(folder: Path, overrides: Sequence[str], besides: Collection[str]) -> None:
    """Sets aside a run of other settings, which a table had in an earlier version.

    Args:
        folder: of the run.
        overrides: of the run that is to be there.
        besides: settings that make no other run.
    """
    if not (folder / "config.yaml").exists():
        return
    try:
        differing = [one for one in differences(folder, composed_today(overrides)) if one not in besides]
    except (HydraException, OmegaConfBaseException):
        return  # train.py says what is wrong
    if differing:
        place = folder.parent / EARLIER
        place.mkdir(exist_ok=True)
        aside = next(path for k in count(1) if not (path := place / f"{folder.name}-{k}").exists())
        folder.rename(aside)
        print(f"{folder} was a run of other settings ({', '.join(differing)}): it is {aside} now.", flush=True)
