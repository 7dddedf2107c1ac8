"""Fractions as numbers: budgets are written as the field writes them, ``threat.eps=8/255``."""

from __future__ import annotations

import copy
import re
from collections.abc import Collection, Iterator
from dataclasses import is_dataclass
from typing import get_args, get_type_hints

from omegaconf import DictConfig, ListConfig, OmegaConf

from robustforge.types import UserError

_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_FRACTION = re.compile(rf"\s*({_NUMBER})\s*(?:/\s*({_NUMBER})\s*)?")
_BUDGETS = re.compile(r"(.*\.)?(eps|step_size|train_budgets\.[^.]+)")  # what must be a number, or null


def with_numbers(cfg: DictConfig, table: type | None = None) -> DictConfig:
    """A configuration whose fractions (texts such as ``8/255``) are numbers; the same object where it has none.

    Args:
        cfg: a configuration or a node of one. What an interpolation takes from elsewhere becomes a value of its own.
        table: of its settings, see :mod:`robustforge.config.tables`: those that are texts stay as they are, such as
            ``shard=2/8``, or a folder ``1/2``. None where all may be numbers.

    Raises:
        UserError: a budget or step size that is no number, or a fraction of zero.
    """
    found = dict(_fractions(cfg, "", texts_of(table) if table else ()))
    if not found:
        return cfg
    made = copy.deepcopy(cfg)
    for key, value in found.items():
        OmegaConf.update(made, key, value)
    return made


def texts_of(table: type, prefix: str = "") -> set[str]:
    """Dotted names of the settings of a table that are texts, or may be."""
    found = set[str]()
    for name, hint in get_type_hints(table).items():
        if is_dataclass(hint) and isinstance(hint, type):
            found |= texts_of(hint, f"{prefix}{name}.")
        elif str in (hint, *get_args(hint)):
            found.add(f"{prefix}{name}")
    return found


def _fractions(node: DictConfig | ListConfig, prefix: str, texts: Collection[str]) -> Iterator[tuple[str, float]]:
    """Dotted keys and values of all fractions; containers that an interpolation takes from elsewhere are left out."""
    for key in range(len(node)) if isinstance(node, ListConfig) else list(node):
        if OmegaConf.is_missing(node, key):
            continue
        value = node[key]
        if isinstance(value, DictConfig | ListConfig):
            if not OmegaConf.is_interpolation(node, key):
                yield from _fractions(value, f"{prefix}{key}.", texts)
        elif isinstance(value, str) and str(place := node._get_full_key(key)).split("[")[0] not in texts:
            number = _number(place, value)
            if number is not None:
                yield f"{prefix}{key}", number


def _number(place: str, text: str) -> float | None:
    """The value of a text that must be a number where it stands, or is a fraction anywhere; else None."""
    must = _BUDGETS.fullmatch(place.replace("[", ".").replace("]", "")) is not None
    found = _FRACTION.fullmatch(text) if must or "/" in text else None
    if found and float(found[2] or 1):
        return float(found[1]) / float(found[2] or 1)
    if found or must:
        raise UserError(f"{place} is '{text}': give a number, or a fraction such as 8/255.")
    return None
