"""What is looked at before Hydra makes the first folder."""

from __future__ import annotations

import sys
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from robustforge.config.devices import check_launch, devices_of
from robustforge.config.errors import say
from robustforge.types import UserError

_FOLDERS = ("paths.output_dir", "paths.store_dir", "hydra.run.dir", "hydra.sweep.dir")


class EarlyChecks(Callback):
    """Hydra callback: a run that cannot be ends here, in one sentence and with exit code 2."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Before the run folder is there."""
        _refuse(config, devices=True)

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Before the sweep's folder is there; devices may be what is swept."""
        _refuse(config, devices=False)


def _refuse(config: DictConfig, devices: bool) -> None:
    try:
        check_folders(config)
        if devices:
            check_launch(devices_of(config.trainer))
    except UserError as error:
        sys.exit(say(str(error)))  # Hydra makes a warning of any other exception


def check_folders(config: DictConfig) -> None:
    """Raises UserError where a folder is null or empty, which would become a folder named ``None``, or the root."""
    plain: Any = OmegaConf.to_container(config, resolve=False)
    for key in _FOLDERS:
        value = plain
        for name in key.split("."):
            value = value[name]
        if value in (None, ""):
            raise UserError(f"{key} is {'null' if value is None else 'empty'}: give a folder.")
