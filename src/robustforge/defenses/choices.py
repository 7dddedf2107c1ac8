"""Settings that are a word out of a list."""

from __future__ import annotations

from collections.abc import Iterable

from robustforge.hints import near_miss
from robustforge.types import UserError


def one_of(name: str, value: str, choices: Iterable[str]) -> None:
    """Raises UserError where ``value`` is none of the ``choices``; ``name`` says what it is the value of."""
    if value not in (known := tuple(choices)):
        raise UserError(f"{name} is '{value}'{near_miss(value, known)}: choose one of {', '.join(known)}.")
