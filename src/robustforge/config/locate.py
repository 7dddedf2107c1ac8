"""Where the configs lie: inside an installed wheel, or beside the sources of a checkout."""

from __future__ import annotations

from pathlib import Path

from robustforge.types import UserError


def config_folder() -> Path:
    """The folder that holds train.yaml.

    Raises:
        UserError: neither place has it, so the installation is broken.
    """
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "conf", package.parent.parent / "conf"):
        if (folder / "train.yaml").exists():
            return folder
    raise UserError("robustforge's configs are missing: reinstall the package, or run from a complete checkout.")
