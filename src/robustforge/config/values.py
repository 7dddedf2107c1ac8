"""Values of a configuration, checked against what they build before anything is built, trained or written."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

import hydra
from hydra.errors import InstantiationException
from omegaconf import DictConfig, OmegaConf

from robustforge.config import tables
from robustforge.config.numbers import with_numbers
from robustforge.hints import Made, hints_of, mistake, near_miss
from robustforge.types import UserError

_HYDRA_KEYS = ("_target_", "_partial_", "_convert_", "_recursive_", "_args_")
_NEEDED = inspect.Parameter.empty
Mistakes = Iterator[tuple[str, str]]  # dotted keys, and sentences about them


def check_node(node: DictConfig) -> None:
    """Checks a node and all below it against the signatures and type hints of what they build.

    Raises:
        UserError: a value of another type or out of range, a name that its object does not take, or one that it needs;
            of several mistakes the one highest in the tree, which is where a person sets it.
    """
    _raise_first(_below(OmegaConf.to_container(node, resolve=True), str(node._get_full_key(None) or "")))


def check_run(cfg: DictConfig, table: type) -> None:
    """Checks a whole configuration.

    Args:
        cfg: resolved.
        table: what it holds beside the objects that it builds, see :mod:`robustforge.config.tables`.

    Raises:
        UserError: see :func:`check_node`.
    """
    values = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(values, dict)
    if isinstance(values.get("defense"), dict):
        values["defense"] = {key: item for key, item in values["defense"].items() if key not in tables.GIVEN}
    groups = {key: item for key, item in values.items() if isinstance(item, dict | list)}
    unknown = set(groups) - {field.name for field in fields(table)}
    named = {str(key): item for key, item in values.items() if key not in unknown}
    _raise_first([*_of_target(named, "", table), *_below(values, "")])


def check_command(cfg: DictConfig, table: type) -> None:
    """Checks what a command that reads a trained run says by itself, and leaves what it hands on to the run.

    Raises:
        UserError: see :func:`check_node`.
    """
    own = OmegaConf.masked_copy(cfg, [field.name for field in fields(table)])
    values = OmegaConf.to_container(with_numbers(own, table), resolve=True)
    assert isinstance(values, dict)
    _raise_first(_of_target({str(key): item for key, item in values.items()}, "", table))


def _raise_first(mistakes: Mistakes | list[tuple[str, str]]) -> None:
    found = sorted(mistakes, key=lambda one: one[0].count("."))
    if found:
        raise UserError(found[0][1])


def _below(value: Any, key: str) -> Mistakes:
    """Mistakes of every node in plain values."""
    items = enumerate(value) if isinstance(value, list) else value.items() if isinstance(value, dict) else ()
    if isinstance(value, dict) and "_target_" in value:
        yield from _of_target(value, key, _located(value["_target_"], _join(key, "_target_")))
    for name, item in items:
        yield from _below(item, _join(key, name))


def _of_target(values: Mapping[str, Any], key: str, target: Callable[..., Any]) -> Mistakes:
    """Mistakes of the values of one node, or of one table, without those of the nodes below it."""
    takes = _Signature.of(target)
    for name, item in values.items():
        place = _join(key, name)
        if name in _HYDRA_KEYS or item == "???":
            continue
        if name not in takes.named and not takes.anything:
            has = f": {getattr(target, '__name__', key)} has {', '.join(takes.named)}" if key else ""
            yield place, f"There is no setting {place}{near_miss(name, list(takes.named))}{has}."
        elif isinstance(item, dict) and getattr(takes.hints.get(name), "__module__", "") == tables.__name__:
            yield from _of_target(item, place, takes.hints[name])
        elif name in takes.hints and not _same(item, takes.named[name]):
            problem = mistake(takes.hints[name], _made(item), strangers=not takes.own)
            if problem:
                yield place, f"{place} {problem}"
    if not values.get("_partial_") and "_args_" not in values:
        needed = (_join(key, name) for name in takes.named if takes.named[name] is _NEEDED and name not in values)
        yield from ((place, f"There is no {place}: add {place}=<value> to the command.") for place in needed)


@dataclass(frozen=True)
class _Signature:
    """What may be given to a class or function.

    Attributes:
        named: defaults by name; ``_NEEDED`` where there is none.
        hints: types by name, of those that have one.
        anything: whether it takes other names too.
        own: whether it is of this package, whose hints of classes mean objects.
    """

    named: Mapping[str, Any]
    hints: Mapping[str, Any]
    anything: bool
    own: bool

    @staticmethod
    @functools.lru_cache(maxsize=1024)
    def of(target: Callable[..., Any]) -> _Signature:
        """Looked up once."""
        own = str(getattr(target, "__module__", "")).startswith("robustforge.")
        try:
            parameters = inspect.signature(target).parameters.values()
        except ValueError:  # written in C, without a signature
            return _Signature({}, {}, True, own)
        anything = any(one.kind is one.VAR_KEYWORD for one in parameters)
        named = {
            one.name: one.default for one in parameters if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)
        }
        hints = {**hints_of(target), **_better(target)}
        return _Signature(named, {name: hints[name] for name in named if name in hints}, anything, own)


def _same(value: Any, default: Any) -> bool:
    """Whether a value is the default of its parameter, which needs no leave from a type hint."""
    return type(value) is type(default) and bool(value == default)


def _better(target: Callable[..., Any]) -> Mapping[str, Any]:
    home = str(getattr(target, "__module__", ""))
    found = [hints for name, hints in tables.OTHERS.items() if home == name or home.startswith(f"{name}.")]
    return found[0] if found else {}


def _made(value: Any) -> Any:
    """A value in which every node is the object that it will be."""
    if isinstance(value, dict):
        return Made() if "_target_" in value else {key: _made(item) for key, item in value.items()}
    return [_made(item) for item in value] if isinstance(value, list) else value


def _join(key: str, name: Any) -> str:
    return f"{key}.{name}" if key else str(name)


def _located(target: Any, key: str) -> Callable[..., Any]:
    try:
        return _found(target)
    except (InstantiationException, TypeError) as error:
        reason = " ".join(str(error.__cause__ or error).split())
        raise UserError(f"{key} is {target!r}, which cannot be built ({reason}): give module.Name.") from None


@functools.lru_cache(maxsize=1024)
def _found(target: str) -> Callable[..., Any]:
    """Hydra's own look-up, which refuses what must not be called."""
    found: Callable[..., Any] = hydra.utils.instantiate({"_target_": target, "_partial_": True}).func
    return found
