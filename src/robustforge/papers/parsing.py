"""Mappings to dataclasses; a key that the dataclass does not have is an error."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields
from typing import Any, TypeVar

Parsed = TypeVar("Parsed")


def parse(kind: type[Parsed], given: Any, where: str) -> Parsed:
    """An instance of a dataclass; lists become tuples.

    Args:
        kind: the dataclass; its field names are the keys.
        given: the mapping.
        where: what the mapping describes, for messages.

    Raises:
        ValueError: it is no mapping, a key is unknown, or one without a default is missing.
    """
    if not isinstance(given, Mapping):
        raise ValueError(f"{where} is {given!r}: give a mapping.")
    known = fields(kind)  # type: ignore[arg-type]
    check_keys(given, [field.name for field in known], where)
    needed = [field.name for field in known if field.default is MISSING and field.default_factory is MISSING]
    for name in needed:
        if name not in given:
            raise ValueError(f"{where} lacks '{name}': add it.")
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in given.items()})


def check_keys(given: Iterable[str], known: Iterable[str], where: str) -> None:
    """Raises a ValueError that names an unknown key and the one that was probably meant."""
    for key in given:
        if key not in known:
            raise ValueError(f"{where} has an unknown key '{key}'{did_you_mean(key, known)}")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of a message: the near miss, or all that can be chosen."""
    choices = [str(choice) for choice in known]
    near = difflib.get_close_matches(str(word), choices, n=1)
    return f": did you mean '{near[0]}'?" if near else f": choose one of {', '.join(choices)}."
