"""What a sweep is: a folder that its command finds again, and jobs that are known to be finished."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from robustforge.config.identity import content_name, deciding, naming_overrides
from robustforge.config.locate import config_folder
from robustforge.config.presets import SWEEPING, find_preset
from robustforge.config.resolvers import run_folder

_SWEEPER = ("hydra.sweeper", "hydra/sweeper")
# Optuna minimizes unless told otherwise, and its sampler starts from the clock: another command would be another sweep
_OPTUNA = {"hydra.sweeper.direction": "maximize", "hydra.sweeper.sampler.seed": "0"}
_UNSEEDED = ("hydra/sweeper/sampler=grid",)


def completed(arguments: Sequence[str]) -> list[str]:
    """The command line of a sweep with what it leaves open: its folder, named by what is swept, and Optuna's seed.

    Args:
        arguments: the command line, without the program's name.

    Returns:
        ``arguments`` alone, unless it is a sweep. The same command therefore continues its own sweep.
    """
    if not any(argument in SWEEPING for argument in arguments):
        return list(arguments)
    overrides = [item for item in arguments if "=" in item and not item.startswith("-")]
    given = {item.lstrip("+~").partition("=")[0] for item in overrides}
    added = []
    if "hydra/sweeper=optuna" in overrides:
        seeded = not any(item in overrides for item in _UNSEEDED)
        wanted = {key: value for key, value in _OPTUNA.items() if seeded or "sampler" not in key}
        added = [f"{key}={value}" for key, value in wanted.items() if key not in given]
    if "hydra.sweep.dir" not in given:
        swept = [item for item in overrides if not item.startswith("hydra") or item.startswith(_SWEEPER)]
        added.append(f"hydra.sweep.dir=${{paths.output_dir}}/sweeps/{run_folder(naming_overrides(swept))}")
    first = next((place for place, item in enumerate(arguments) if item in overrides), len(arguments))
    return [*arguments[:first], *added, *arguments[first:]]  # argparse wants the overrides in one piece


def job_key(cfg: DictConfig, overrides: Sequence[str]) -> str:
    """Hash of all that decides the numbers of a sweep's job: a finished job with the same one need not be run again.

    Args:
        cfg: its composition, without its preset.
        overrides: its own, which find the preset.
    """
    from robustforge.fingerprint import code_state, describe, key_of  # torch: seconds, once a sweep

    values: Any = OmegaConf.to_container(cfg, resolve=True)
    path = values["dataset"].get("path")
    return key_of(
        {
            "values": describe(deciding(values)),
            "evaluate": values["evaluate"],
            "data": content_name(Path(path)) if path else None,
            "preset": str(find_preset(overrides, config_folder())),
            "source": code_state()["source"],
        }
    )
