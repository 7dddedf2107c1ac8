"""Where a run's files lie: absolute paths in its configuration, and the way back to them from any folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import InterpolationResolutionError

from robustforge.config import tables
from robustforge.config.errors import explain
from robustforge.config.exported import check_sums, is_exported
from robustforge.config.identity import is_shown
from robustforge.config.locate import config_folder
from robustforge.config.numbers import with_numbers
from robustforge.fingerprint import names_file
from robustforge.types import UserError

_ASKED = ("paths.store_dir", "paths.data_dir", "dataset.path")
_PLACES = ("paths.data_dir", "paths.output_dir", "paths.store_dir", "dataset.path", "dataset.data_dir")


def settled(cfg: DictConfig) -> DictConfig:
    """The composition as plain values that mean the same in every folder: paths absolute, fractions numbers.

    Args:
        cfg: a composition of ``train.yaml``.

    Returns:
        A resolved copy. The places of data and store are absolute, and so is every other text that names an existing
        file, such as the weights of a network.

    Raises:
        UserError: a budget that is no number, values that the command must give, or one that is taken from a place
            that does not exist.
    """
    missing = list(_missing(OmegaConf.to_container(cfg, resolve=False), ""))
    if missing:
        asked = " ".join(f"{key}=<value>" for key in missing)
        raise UserError(f"There is no default for {', '.join(missing)}: add {asked} to the command.")
    try:
        plain = OmegaConf.to_container(with_numbers(cfg, tables.Run), resolve=True)
    except InterpolationResolutionError as error:
        raise UserError(explain(error, config_folder(), "train")) from None
    made = OmegaConf.create(_absolute(plain, ""))
    assert isinstance(made, DictConfig)
    return made


def _missing(value: Any, key: str) -> Iterator[str]:
    """Dotted keys that hold ``???``."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _missing(item, f"{key}.{name}" if key else str(name))
    elif value == "???":
        yield key


def _absolute(value: Any, key: str) -> Any:
    if isinstance(value, dict):
        return {name: _absolute(item, f"{key}.{name}" if key else str(name)) for name, item in value.items()}
    if isinstance(value, list):
        return [_absolute(item, key) for item in value]
    if not isinstance(value, str) or key.endswith("_target_"):
        return value
    if key in ("paths.data_dir", "dataset.data_dir"):
        value = value or os.environ.get("ROBUSTFORGE_DATA", "") or "data"
    if value and (key in _PLACES or (names_file(value) and not is_shown(key))):
        return str(Path(value).expanduser().absolute())
    return value


def find_store(recorded: str, run: Path) -> Path:
    """The store of a trained run: where its configuration says, else beside a run whose outputs were moved as a whole.

    Args:
        recorded: ``paths.store_dir`` of the run.
        run: its folder.

    Raises:
        UserError: it is in neither place.
    """
    place = Path(recorded)
    nearby = list(_beside(place, run.absolute()))
    candidates = [place, *nearby] if place.is_absolute() else [*nearby, place]  # relative ones are of earlier versions
    for candidate in candidates:
        if candidate.is_dir():
            return candidate.absolute()
    raise UserError(
        f"The store {place} of the run {run} is not there, and no folder above the run has it either: give "
        "paths.store_dir=<folder that holds what the run trained>."
    )


def _beside(store: Path, run: Path) -> Iterator[Path]:
    """Places of the store in the folders above the run, under its own name and those of up to two folders above it."""
    names = [part for part in store.parts if part != store.anchor]
    tails = [Path(*names[-count:]) for count in (3, 2, 1) if count <= len(names)]
    for parent in run.parents:
        yield from (parent / tail for tail in tails)


def move_to(cfg: DictConfig, run: Path, asked: DictConfig | None = None) -> None:
    """Points the configuration of a trained run to where its files lie now.

    Args:
        cfg: of the run; changed.
        run: its folder.
        asked: the command that reads the run: its ``paths.store_dir``, ``paths.data_dir`` and ``dataset.path`` win over
            what the run recorded, null leaves a place to the run.

    Raises:
        UserError: the store is nowhere, or the run is an exported one whose files are not those that were written.
    """
    store, data_dir, path = (OmegaConf.select(asked, key) if asked else None for key in _ASKED)
    if store is not None and not Path(store).is_dir():
        raise UserError(
            f"paths.store_dir is {store}, which is no folder: give the one that holds what the run trained."
        )
    elsewhere = os.environ.get("ROBUSTFORGE_DATA")
    if data_dir is None and elsewhere and not Path(str(cfg.paths.data_dir)).is_dir():
        data_dir = elsewhere
    recorded = str(cfg.paths.store_dir)
    with open_dict(cfg):
        cfg.paths.exported = str(run.absolute()) if is_exported(run) else None
        if cfg.paths.exported:
            check_sums(run)
            cfg.paths.store_dir = store or str(run.absolute() / "store")  # of what will be measured
        else:
            cfg.paths.store_dir = store or str(find_store(recorded, run))
        for key in ("defense.undefended_from", "defense.baseline.weights"):  # kept in the store, see config/given.py
            value = OmegaConf.select(cfg, key)
            if isinstance(value, str) and value.startswith(f"{recorded}{os.sep}"):
                OmegaConf.update(cfg, key, str(cfg.paths.store_dir) + value.removeprefix(recorded))
        if data_dir is not None:
            cfg.paths.data_dir = cfg.dataset.data_dir = data_dir
        if path is not None:
            cfg.dataset.path = path
