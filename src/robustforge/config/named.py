"""Attacks, protocols and data sets by the names of their files in conf/, for callers in Python.

Composing leaves a running Hydra application's state as it was.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.singleton import Singleton
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from robustforge.attacks.core.attack import Attack
from robustforge.config.errors import explain
from robustforge.config.instantiate import build
from robustforge.config.locate import config_folder
from robustforge.config.resolvers import register
from robustforge.evaluation.protocol import Protocol
from robustforge.hints import near_miss
from robustforge.types import Threat, UserError, radius

if TYPE_CHECKING:  # Lightning comes with it, and attacks can do without
    from robustforge.data.datamodule import ImageData

_FRACTION = re.compile(r"\s*[0-9.]+\s*/\s*[0-9.]+\s*")


def names(group: str) -> list[str]:
    """Names of a group's options, such as ``attack``, ``protocol`` or ``dataset``."""
    folder = config_folder() / group
    found = {path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml")}
    if group == "attack":
        register()
        found |= {
            f"torchattacks/{name.removesuffix('.yaml')}" for name in ConfigStore.instance().list("attack/torchattacks")
        }
    return sorted(found - {"paper"} if group == "protocol" else found)  # `paper` asks for a defense of this package


def attack(name: str, **settings: Any) -> Attack:
    """The attack of a file in conf/attack.

    Args:
        name: such as ``pgd``, ``auto`` or ``torchattacks/APGD``.
        **settings: of the file that are to be otherwise; a dotted name reaches inside (``attacks.square.n_queries``).

    Raises:
        UserError: no such attack or setting, or a value that the attack refuses; a near miss is named.

    Example:
        >>> attack("pgd", steps=100).steps
        100
    """
    try:
        return _attack(name, tuple(sorted(settings.items())))
    except TypeError:  # a setting that has no hash
        return _attack.__wrapped__(name, tuple(settings.items()))


@functools.lru_cache(maxsize=64)  # composing takes longer than a short attack; attacks are frozen
def _attack(name: str, settings: tuple[tuple[str, Any], ...]) -> Attack:
    with _composed(f"attack/{_known('attack', name)}") as cfg:
        node = cfg.attack.torchattacks if name.startswith("torchattacks/") else cfg.attack
        for key, value in settings:
            _set(node, f"Attack {name}", key, value)
        made: Attack = build(node)
    return made


def protocol(
    name: str,
    threat: Threat | None = None,
    main: str | Attack = "pgd",
    seed: int = 0,
    overrides: Sequence[str] = (),
    **settings: Any,
) -> Protocol:
    """The protocol of a file in conf/protocol.

    Args:
        name: such as ``standard``, ``adaptive`` or ``paper/mrr``.
        threat: budget; None for a protocol that has its own.
        main: the attack that joins the protocol's: an attack, or the name of one.
        seed: of the attacks' draws.
        overrides: as on the command line, such as ``attack.steps=20``.
        **settings: fields of :class:`robustforge.evaluation.protocol.Protocol`.

    Raises:
        UserError: no such protocol, attack or setting; a near miss is named.

    Example:
        >>> protocol("standard", Threat("linf", 8 / 255), n_test=100).n_test
        100
    """
    check_known(f"Protocol {name}", settings, [field.name for field in fields(Protocol)])
    named = _known("attack", main) if isinstance(main, str) else "none"
    chosen = [f"protocol={_known('protocol', name)}", f"attack={named}", f"seed={seed}", *overrides]
    with _composed("evaluate", chosen) as cfg:
        threat = threat or Threat("linf", 0.0)
        OmegaConf.update(cfg, "threat.norm", threat.norm)
        OmegaConf.update(cfg, "threat.eps", threat.eps)
        made: Protocol = build(cfg.protocol)
    if not isinstance(main, str):
        settings = {"main": main, **settings}
    return replace(made, **settings)


def dataset(name: str, **settings: Any) -> ImageData:
    """The data set of a file in conf/dataset, loaded.

    Args:
        name: such as ``digits`` or ``cifar10``.
        **settings: of the file that are to be otherwise, such as ``path``.

    Raises:
        UserError: no such data set or setting, or its data is missing.
    """
    with _composed("train", [f"dataset={_known('dataset', name)}"]) as cfg:
        for key, value in settings.items():
            _set(cfg.dataset, f"Data set {name}", key, value)
        made: ImageData = build(cfg.dataset)
    made.setup()
    return made


def check_known(what: str, settings: Iterable[str], known: Sequence[str]) -> None:
    """Raises UserError for one of the ``settings`` of ``what`` that is not ``known``; a near miss is named."""
    for key in settings:
        if key not in known:
            raise UserError(f"{what} has no setting '{key}'{near_miss(key, known)}: it has {', '.join(known)}.")


@contextmanager
def _composed(config_name: str, overrides: Sequence[str] = ()) -> Iterator[DictConfig]:
    """A composition; Hydra's singletons are those of the caller again afterwards."""
    before = Singleton.get_state()
    try:
        register()
        GlobalHydra.instance().clear()
        with initialize_config_dir(config_dir=str(config_folder()), version_base="1.3"):
            cfg = compose(config_name, overrides=list(overrides))
        yield cfg
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(explain(error, config_folder(), "evaluate")) from None
    finally:
        Singleton.set_state(before)


def _known(group: str, name: str) -> str:
    found = names(group)
    if name not in found:
        short = ", ".join(one for one in found if "/" not in one)
        raise UserError(f"There is no {group} '{name}'{near_miss(name, found)}: there are {short}.")
    return name


def _set(node: DictConfig, what: str, key: str, value: Any) -> None:
    check_known(what, [key], list(_keys(node)))
    is_fraction = isinstance(value, str) and _FRACTION.fullmatch(value)
    OmegaConf.update(node, key, radius(value) if is_fraction else value, force_add=True)


def _keys(node: DictConfig, prefix: str = "") -> Iterator[str]:
    """Dotted names of everything that can be set in a node."""
    for key in map(str, node):
        if key != "_target_":
            yield f"{prefix}{key}"
            child = node._get_node(key)
            if isinstance(child, DictConfig) and not child._is_none():
                yield from _keys(child, f"{prefix}{key}.")
