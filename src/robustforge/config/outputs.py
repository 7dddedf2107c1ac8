"""Where a command may write: not over a run, a store, or files of another kind; and names that stay in their folder."""

from __future__ import annotations

import re
from pathlib import Path

from omegaconf import DictConfig

from robustforge.types import UserError

_NAMES = ("protocol.name", "defense_name", "dataset.name")  # which become names of files and folders
_PART = re.compile(r"\w[\w.+=,-]*")


def check_names(cfg: DictConfig) -> None:
    """Refuses names that lead out of the folder which they are meant for.

    Raises:
        UserError: names the key.
    """
    for key in _NAMES:
        group, _, field = key.rpartition(".")
        name = (cfg.get(group) or {}).get(field) if group else cfg.get(field)
        if name is not None and not all(_PART.fullmatch(part) for part in str(name).split("/")):
            raise UserError(
                f"{key} is {name!r}, which is no name for a file: give letters, digits, '_' and '-', with '/' between."
            )


def check_output(folder: Path, key: str, store: Path) -> None:
    """Refuses to write where a run or the store of runs lies.

    Args:
        folder: that is to be written.
        key: which the caller sets it by, for the message.
        store: of this command.

    Raises:
        UserError: it is a run folder, or the store or in it.
    """
    if (folder / "config.yaml").exists():
        raise UserError(f"{key}={folder} is the folder of a run, which would be mixed with it: give another folder.")
    outside_store(folder, key, store)


def outside_store(folder: Path, key: str, store: Path) -> None:
    """Raises UserError for a folder that is the store, or in it."""
    if folder.resolve().is_relative_to(store.resolve()):
        raise UserError(f"{key}={folder} is in the store {store}, which holds products alone: give another folder.")
