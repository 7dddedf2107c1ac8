"""The star at a number that an indicator speaks against, and the line below a table that says which indicators do."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from robustforge.reporting.advice import meaning


def star(violated: Sequence[str]) -> str:
    """What follows a number of an attack with these violated indicators: a star, or nothing."""
    return " *" * bool(violated)


def star_note(violated: Iterable[Sequence[str]]) -> list[str]:
    """The line below a table with these violated indicators, cell by cell; none where there is no star."""
    names = list(dict.fromkeys(name for found in violated for name in found))
    if not names:
        return []
    told = "; ".join(f"{name.replace('_', ' ')}, {meaning(name)}" for name in names)
    return [f"a star: an indicator says that the attack failed rather than the defense held: {told}."]
