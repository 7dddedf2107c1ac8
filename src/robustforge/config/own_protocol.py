"""``protocol=paper``: the protocol of the defense's own tables, put in its place before Hydra reads the arguments."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hydra.utils import get_class
from omegaconf import OmegaConf

from robustforge.types import UserError

WORD = "protocol=paper"


def own_protocol(arguments: Sequence[str], folder: Path) -> list[str]:
    """``arguments`` with ``protocol=paper`` replaced by the option that it stands for.

    Args:
        arguments: the command line, without the program's name; the defense is the one that it names, that of the run
            folder in ``run=`` where there is one, or the default.
        folder: of the configs.

    Raises:
        UserError: the defense has no paper's protocol, or several defenses are swept.
    """
    if WORD not in arguments:
        return list(arguments)
    given = dict(item.split("=", 1) for item in arguments if "=" in item)
    defense, dataset, target = _trained(given["run"]) if "run" in given else _named(given, folder)
    preset = folder / "preset" / f"{defense}_{dataset}.yaml"
    chosen = [str(item) for item in OmegaConf.load(preset).overrides] if preset.exists() else []
    found = next((item for item in chosen if item.startswith("protocol=")), None)
    if found is None:
        name = getattr(get_class(target), "paper_protocol", None)
        if name is None:
            raise UserError(f"{defense} reproduces no paper's table, so that {WORD} means nothing: try standard.")
        found = f"protocol={name}"
    return [found if item == WORD else item for item in arguments]


def _named(given: dict[str, str], folder: Path) -> tuple[str, str, str]:
    """(Defense, data set, class of the defense) of a training command."""
    picks = [entry for entry in OmegaConf.load(folder / "train.yaml").defaults if not isinstance(entry, str)]
    defaults = {key: value for entry in picks for key, value in entry.items()}
    defense, dataset = (given.get(group, defaults[group]) for group in ("defense", "dataset"))
    path = folder / "defense" / f"{defense}.yaml"
    if not path.exists():
        what = "several defenses are swept" if "," in defense else f"there is no defense={defense}"
        raise UserError(f"{WORD} stands for the protocol of one defense, and {what}: name one defense.")
    return defense, dataset, str(OmegaConf.load(path)["_target_"])


def _trained(run: str) -> tuple[str, str, str]:
    """The same of a run folder."""
    path = Path(run) / "config.yaml"
    if not path.exists():
        raise UserError(f"{run} is no run folder (it has no config.yaml): give run=<folder that train.py wrote>.")
    cfg = OmegaConf.load(path)
    return str(cfg.defense_name), str(cfg.dataset.name), str(OmegaConf.to_container(cfg.defense)["_target_"])
