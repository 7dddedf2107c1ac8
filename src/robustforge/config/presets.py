"""The paper's values for a pair of defense and data set, as overrides that stand before the caller's own.

Hydra's interpolated presets cannot pick other groups' options (a backbone, a selector), which is most of what a
preset is for. A list of overrides can, says plainly what it does, and gives way to whatever the caller writes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from omegaconf import OmegaConf

_SWEEPING = ("-m", "--multirun", "hydra.mode=MULTIRUN")


def preset_overrides(arguments: Sequence[str], folder: Path) -> list[str]:
    """The overrides of the preset that ``arguments`` select, without those that the caller decides otherwise.

    Args:
        arguments: the command line, without the program's name.
        folder: of the configs.

    Returns:
        Overrides to put before ``arguments``; none for a sweep (each of its jobs asks again), for an experiment (which
        is complete in itself) and for pairs without a preset.
    """
    given = dict(item.lstrip("+~").split("=", 1) for item in arguments if "=" in item and not item.startswith("-"))
    if "experiment" in given or any(argument in _SWEEPING for argument in arguments):
        return []
    defaults = {
        key: value
        for entry in OmegaConf.load(folder / "train.yaml").defaults
        if not isinstance(entry, str)
        for key, value in entry.items()
    }
    defense, dataset = (given.get(group, defaults[group]) for group in ("defense", "dataset"))
    path = folder / "preset" / defense / f"{dataset}.yaml"
    if not path.exists():
        return []
    overrides = [str(item) for item in OmegaConf.load(path).overrides]
    kept = [item for item in overrides if not _decided(item.split("=", 1)[0], given)]
    if not kept:
        return []
    # the preset follows from defense and dataset: it has no place in the name of the run folder
    hidden = OmegaConf.load(folder / "train.yaml").hydra.job.config.override_dirname.exclude_keys
    keys = ",".join([*hidden, *(item.split("=", 1)[0] for item in kept)])
    return [*kept, f"hydra.job.config.override_dirname.exclude_keys=[{keys}]"]


def _decided(key: str, given: dict[str, str]) -> bool:
    """Whether the caller set this very key, or picked another option of the group that it belongs to."""
    group = key.split(".", 1)[0]
    # naming the defense and the data set is what picked this preset: it decides nothing inside them
    return key in given or ("." in key and group in given and group not in ("defense", "dataset"))
