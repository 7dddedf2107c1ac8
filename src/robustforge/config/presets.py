"""The paper's values for a pair of defense and data set, as overrides that stand before the caller's own.

Hydra's interpolated presets cannot pick other groups' options (a backbone, a selector), which is most of what a
preset is for. A list of overrides can, says plainly what it does, and gives way to whatever the caller writes.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from omegaconf import OmegaConf

from robustforge.config.trust import load_plain
from robustforge.types import UserError

SWEEPING = ("-m", "--multirun", "hydra.mode=MULTIRUN")
_SHORT = "protocol=paper"
_OWN = "protocol=paper/"  # the paper's protocol, or its variant for one data set


@dataclass(frozen=True)
class Preset:
    """What the preset of one command contributes to it.

    Attributes:
        name: of its file, below the folder of the configs.
        applied: its overrides that hold.
        replaced: its overrides that the caller decides otherwise.
        unnamed: keys whose values have no place in the name of the run folder: those that never have, and the preset's
            own, because the preset follows from defense and data set.
    """

    name: str
    applied: list[str]
    replaced: list[str]
    unnamed: list[str]

    def put_into(self, arguments: Sequence[str]) -> list[str]:
        """The command line with this preset written out, before the caller's first override."""
        own = any(item.startswith(_OWN) for item in self.applied)
        written = [item for item in arguments if not (own and item == _SHORT)]
        # argparse wants the overrides in one piece, and flags may stand before or after them
        first = (k for k, item in enumerate(written) if item[:1] == "~" or (item[:1] != "-" and "=" in item))
        place = next(first, len(written))
        unnamed = f"hydra.job.config.override_dirname.exclude_keys=[{','.join(self.unnamed)}]"
        return [*written[:place], *self.applied, unnamed, *written[place:]]

    def __str__(self) -> str:
        lines = [f"Preset conf/{self.name} sets", *_wrapped(self.applied)]
        if self.replaced:
            lines += ["and gives way to the command line in", *_wrapped(self.replaced)]
        return "\n".join(lines)


def find_preset(arguments: Sequence[str], folder: Path) -> Preset | None:
    """The preset that a command line selects.

    Args:
        arguments: the command line, without the program's name.
        folder: of the configs.

    Returns:
        None for a sweep (each of its jobs asks again), for an experiment (which is complete in itself), for pairs
        without a preset, and where the caller decides all of it.
    """
    given = dict(item.lstrip("+~").split("=", 1) for item in arguments if "=" in item and not item.startswith("-"))
    if "experiment" in given or any(argument in SWEEPING for argument in arguments):
        return None
    root = OmegaConf.load(folder / "train.yaml")
    defaults = {key: value for entry in root.defaults if not isinstance(entry, str) for key, value in entry.items()}
    defense, dataset = (given.get(group, defaults[group]) for group in ("defense", "dataset"))
    name = f"preset/{defense}/{dataset}.yaml"
    if not (folder / name).exists():
        return None
    overrides = [str(item) for item in OmegaConf.load(folder / name).overrides]
    if given.get("protocol") == "paper" and any(item.startswith(_OWN) for item in overrides):
        del given["protocol"]  # the short form asks for what the preset names
    replaced = [item for item in overrides if _decided(_key(item), given)]
    applied = [item for item in overrides if item not in replaced]
    unnamed = [*root.hydra.job.config.override_dirname.exclude_keys, *map(_key, applied)]
    return Preset(name, applied, replaced, unnamed) if applied else None


def for_run(arguments: Sequence[str], folder: Path) -> list[str]:
    """The command line of evaluate.py with ``protocol=paper`` written out for the run that it names.

    Args:
        arguments: the command line, without the program's name.
        folder: of the configs.

    Returns:
        ``arguments`` with the protocol that the preset of the run's pair names, else ``protocol=paper/<defense>``;
        without a protocol where there is no such run, which the command refuses itself.
    """
    if _SHORT not in arguments:
        return list(arguments)
    run = next((item.removeprefix("run=").strip("'\"") for item in arguments if item.startswith("run=")), "")
    written = []
    if (Path(run) / "config.yaml").exists():
        defense, dataset = _names_in(Path(run) / "config.yaml")
        preset = find_preset([f"defense={defense}", f"dataset={dataset}"], folder)
        named = [item for item in preset.applied if item.startswith(_OWN)] if preset else []
        written = named or [f"{_OWN}{defense}"]
    return [new for item in arguments for new in (written if item == _SHORT else [item])]


def _names_in(path: Path) -> tuple[str, str]:
    """The names of the defense and the data set of a run, which may be a stranger's.

    Raises:
        UserError: they are not plain names; with a path in its place, Hydra would load whatever file it leads to.
    """
    cfg = load_plain(path)
    found = cfg.get("defense_name"), (cfg.get("dataset") or {}).get("name")
    for name in found:
        if not isinstance(name, str) or not re.fullmatch(r"\w[\w-]*", name):
            raise UserError(f"'{path}' names a defense or data set {name!r}, which is no name: give protocol=<name>.")
    return str(found[0]), str(found[1])


def _key(override: str) -> str:
    return override.split("=", 1)[0]


def _decided(key: str, given: dict[str, str]) -> bool:
    """Whether the caller set this very key, or picked another option of the group that it belongs to."""
    group = key.split(".", 1)[0]
    # naming the defense and the data set is what picked this preset: it decides nothing inside them
    return key in given or ("." in key and group in given and group not in ("defense", "dataset"))


def _wrapped(overrides: Sequence[str]) -> list[str]:
    indent = "  "
    return textwrap.wrap(
        " ".join(overrides), 120, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
    )
