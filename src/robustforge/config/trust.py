"""Somebody else's run folder: what its configuration may build, and that it may look nothing up.

A configuration names what Hydra imports and calls (``_target_``), and interpolations are resolved by functions
(``${oc.env:SECRET}``). Of a file that was not written here both are refused, unless they are what the files of conf/
build, an optimizer of torch, or of a module that the reader says he trusts.
"""

from __future__ import annotations

import functools
import importlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from robustforge.config.locate import config_folder
from robustforge.types import DamagedError, UserError

_OF_COMMANDS = ("robustforge.config.", "robustforge.cli.")  # resolvers, callbacks of sweeps: never part of a run folder
_TARGET = re.compile(r"_target_:\s*([A-Za-z_][\w.]*)")
_OPTIMIZER = re.compile(r"torch\.optim\.[A-Z]\w*")
_PARTS = ("defense", "dataset", "trainer", "paths")  # without which there is no run
_TORCHATTACKS = "robustforge.attacks.torchattacks.TorchAttack"  # its options are made without files


def load_trusted(folder: Path, trust: str | Sequence[str] = ()) -> DictConfig:
    """The configuration of a run folder, checked by :func:`check_trusted`.

    Args:
        folder: with ``config.yaml``.
        trust: names of modules whose classes and functions it may build.

    Raises:
        UserError: it is no run folder, cannot be read, or is not to be trusted.
    """
    path = folder / "config.yaml"
    if not path.exists():
        raise UserError(f"{folder} is no run folder (it has no config.yaml): give run=<folder that train.py wrote>.")
    cfg = load_plain(path)
    check_trusted(cfg, trust)
    for key in _PARTS:
        if not isinstance(cfg._get_node(key), DictConfig) or not cfg[key]:
            raise UserError(f"{path} is of no run (it has no {key}): give run=<folder that train.py wrote>.")
    return cfg


def load_plain(path: Path) -> DictConfig:
    """A configuration that holds plain values alone; nothing in it is resolved.

    Raises:
        DamagedError: it cannot be read, or is empty.
        UserError: it holds an interpolation or a YAML alias.
    """
    try:
        _refuse_aliases(path)
        cfg = OmegaConf.load(path)
    except UserError:
        raise
    except (OSError, ValueError, RecursionError, yaml.YAMLError, OmegaConfBaseException) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise DamagedError(f"{path} cannot be read as a configuration ({reason}).") from error
    if not isinstance(cfg, DictConfig) or not cfg:
        raise DamagedError(f"{path} is no configuration: it must hold keys and values.")
    _refuse_interpolations(cfg)
    return cfg


def check_trusted(cfg: DictConfig, trust: str | Sequence[str] = ()) -> None:
    """Refuses a configuration that would build what is not known, or look something up; builds and resolves nothing.

    Args:
        cfg: of somebody else's run.
        trust: names of modules, such as ``mynets`` or ``torchvision``: what is defined in them may be built. They are
            imported.

    Raises:
        UserError: names the key and the target, or the interpolation's text.
    """
    trusted = [trust] if isinstance(trust, str) else list(trust)
    _refuse_interpolations(cfg)
    for key, value in _walk(_plain(cfg), ""):
        if key.rpartition(".")[2] == "_target_" and not _known(value) and not _of_trusted(key, value, trusted):
            module = str(value).rpartition(".")[0].partition(".")[0]
            raise UserError(
                f"The run's configuration builds {value!r} at {key}, which this package's own never do: if you trust "
                f"whoever wrote it, add trust={module}."
            )


def _refuse_aliases(path: Path) -> None:
    """A finished run's configuration has none; a few lines of aliases of aliases fill any memory."""
    with path.open(encoding="utf-8") as file:
        if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(file, yaml.SafeLoader)):
            raise UserError(f"{path} holds YAML aliases (*name), and a finished run's configuration holds none.")


def _refuse_interpolations(cfg: DictConfig) -> None:
    for key, value in _walk(_plain(cfg), ""):
        if "${" in key or (isinstance(value, str) and "${" in value):
            raise UserError(
                f"The run's configuration holds the interpolation {value!r} at {key}, and a finished run's holds none: "
                "write the value there, if you trust whoever wrote it."
            )


def _plain(cfg: DictConfig) -> Any:
    return OmegaConf.to_container(cfg, resolve=False)


def _walk(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Every leaf with its dotted key."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _walk(item, f"{path}.{key}" if path else str(key))
        if "_target_" in value and isinstance(value["_target_"], dict | list):
            yield f"{path}._target_", value["_target_"]
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _walk(item, f"{path}.{number}")
    else:
        yield path, value


@functools.cache
def _own_targets() -> frozenset[str]:
    """What the files of conf/ build: every one of them is meant to be built, and reads, writes or runs nothing else."""
    texts = (path.read_text(encoding="utf-8") for path in config_folder().rglob("*.yaml"))
    found = {target for text in texts for target in _TARGET.findall(text)}
    return frozenset({target for target in found if not target.startswith(_OF_COMMANDS)} | {_TORCHATTACKS})


def _known(target: Any) -> bool:
    return isinstance(target, str) and (target in _own_targets() or bool(_OPTIMIZER.fullmatch(target)))


def _of_trusted(key: str, target: Any, trusted: Sequence[str]) -> bool:
    """Whether a trusted module defines the target; what it merely imports (``mynets.os.system``) is not its own."""
    if not isinstance(target, str) or not any(target.startswith(f"{name}.") for name in trusted):
        return False
    place, _, attribute = target.rpartition(".")
    try:
        found = getattr(importlib.import_module(place), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"'{target}' at {key} cannot be imported ({error}): put its folder on PYTHONPATH.") from error
    home = str(getattr(found, "__module__", ""))
    return callable(found) and any(home == name or home.startswith(f"{name}.") for name in trusted)
