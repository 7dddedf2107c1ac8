"""What the numbers of a run depend on, as one digest that can be computed before anything is built or loaded.

The keys of products and cells (:mod:`robustforge.training.keys`, :mod:`robustforge.evaluation.identity`) hold the data
and the weights too, which must be at hand for that. This digest is of what decides those keys and can change in a
checkout: the settings, and the source that the keys hold. A result whose digest is another one today is stale.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict

from robustforge.config.identity import deciding
from robustforge.config.locate import config_folder
from robustforge.config.presets import find_preset
from robustforge.config.resolvers import register

_PARTS = ("defense", "protocol", "dataset", "trainer", "seed")  # the other groups count through these
_OF_MACHINE = {"devices", "num_nodes", "strategy"}  # of the trainer; recorded beside a result
_UNSEEN = {"name", "pictures"}  # of the protocol


def digest_of(cfg: DictConfig) -> str:
    """The digest of one configuration, 16 hexadecimal digits.

    Args:
        cfg: the composition of a run.

    Notes:
        A setting that is null, false or empty counts as one that is not there: what is added and off by default changes
        no number.
    """
    from robustforge.fingerprint import describe, key_of  # torch: only who asks waits for it

    values: Any = deciding(OmegaConf.to_container(cfg, resolve=True))
    parts = {name: values.get(name) for name in _PARTS}
    parts["split"] = None if values.get("split") == "test" else values.get("split")
    parts["trainer"] = {name: value for name, value in parts["trainer"].items() if name not in _OF_MACHINE}
    parts["protocol"] = {name: value for name, value in parts["protocol"].items() if name not in _UNSEEN}
    sources: dict[str, str] = {}
    for target in sorted(set(_targets(parts))):
        sources |= _sources(target)
    return key_of({"values": describe(_filled(parts)), "sources": sources})[:16]


def digest_today(overrides: Sequence[str]) -> str:
    """The digest that ``train.py`` would give a run with these overrides now, its preset included."""
    return digest_of(composed_today(overrides))


def composed_today(overrides: Sequence[str]) -> DictConfig:
    """The configuration that ``train.py`` would run with these overrides now, its preset included."""
    register()
    preset = find_preset(overrides, config_folder())
    wanted = preset.put_into(list(overrides)) if preset else list(overrides)
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        composed = compose("train", overrides=wanted, return_hydra_config=True)
    HydraConfig.instance().set_config(composed)  # for ${hydra:...}, which names the defense
    with open_dict(composed):
        del composed["hydra"]
    return composed


def _filled(node: Any) -> Any:
    """The node without what is null, false or empty."""
    if isinstance(node, Mapping):
        kept = {key: _filled(item) for key, item in node.items()}
        return {key: item for key, item in kept.items() if item is not False and item not in (None, {}, [])}
    return [_filled(item) for item in node] if isinstance(node, list) else node


def _targets(node: Any) -> Iterator[str]:
    """Dotted paths of everything that the configuration builds."""
    if isinstance(node, Mapping):
        if isinstance(node.get("_target_"), str):
            yield node["_target_"]
        for item in node.values():
            yield from _targets(item)
    elif isinstance(node, list):
        for item in node:
            yield from _targets(item)


@functools.cache
def _sources(target: str) -> dict[str, str]:
    """Hashes of the source behind a dotted path, as they are in keys: of a class also what it is derived from."""
    from robustforge.fingerprint import source_hash

    module, _, name = target.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name, None)
    except ImportError:  # a factory such as a class's method, or a module of the user's that is not here
        return {}
    modules = [module, *(kind.__module__ for kind in getattr(found, "__mro__", ()))]
    if module.startswith("robustforge.defenses."):
        modules.append("robustforge.defenses.undefended")  # the stage that all of them may begin with
    hashes = {one: source_hash(one) for one in modules}
    return {one: digest for one, digest in hashes.items() if digest is not None}
