"""What the ``logger`` group may hold. A key of W&B that is written there would be written everywhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from robustforge.types import UserError

KINDS = ("csv", "wandb", "tensorboard")
SETTINGS = ("kind", "project", "entity", "group", "offline")


def check_settings(settings: Mapping[Any, Any]) -> None:
    """Refuses a logger that there is not, and settings that no logger has.

    Args:
        settings: the ``logger`` group.

    Raises:
        UserError: names the key, and never its value.
    """
    kind = settings["kind"]
    if kind not in KINDS:
        raise UserError(f"logger.kind is '{kind}': choose one of {', '.join(KINDS)}.")
    _refuse_unknown(settings)


def check_overrides(overrides: Sequence[str]) -> None:
    """The same for a command line, before Hydra writes it into the folder of a sweep."""
    keys = (item.partition("=")[0].lstrip("+~") for item in overrides)
    _refuse_unknown(key.removeprefix("logger.").split(".")[0] for key in keys if key.startswith("logger."))


def _refuse_unknown(keys: Iterable[Any]) -> None:
    unknown = [str(key) for key in keys if key not in SETTINGS]
    if unknown:
        raise UserError(
            f"logger.{unknown[0]} is no setting of a logger, which has {', '.join(SETTINGS)}: leave it out. A key of "
            "W&B is given by `wandb login` or the environment variable WANDB_API_KEY, and written nowhere."
        )
