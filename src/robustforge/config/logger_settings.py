"""What the ``logger`` group may hold. A key of W&B that is written there would be written everywhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from robustforge.config.presets import SWEEPING
from robustforge.types import UserError

AGENT = "WANDB_SWEEP_ID"  # in the environment of commands that `wandb agent` starts
KINDS = ("csv", "wandb", "tensorboard")
SETTINGS = ("kind", "project", "entity", "group", "offline", "images", "artifacts")


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


def check_agent(arguments: Sequence[str], environment: Mapping[str, str]) -> None:
    """Refuses a sweep that ``wandb agent`` started: all its jobs would be logged as the one run that the agent began.

    Raises:
        UserError: says which of the two to leave out.
    """
    if AGENT in environment and any(item in SWEEPING for item in arguments):
        raise UserError(
            "wandb agent gives the values of one run at a time, and -m asks for a sweep of its own: leave out -m in "
            "the sweep's command, or start train.py -m without the agent."
        )


def _refuse_unknown(keys: Iterable[Any]) -> None:
    unknown = [str(key) for key in keys if key not in SETTINGS]
    if unknown:
        raise UserError(
            f"logger.{unknown[0]} is no setting of a logger, which has {', '.join(SETTINGS)}: leave it out. A key of "
            "W&B is given by `wandb login` or the environment variable WANDB_API_KEY, and written nowhere."
        )
