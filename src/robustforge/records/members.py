"""What each attack of an ensemble did to the images of a cell: new images broken for the passes that it spent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

FIELDS = ("standing", "attacked", "broken", "sampled", "forwards", "backwards")  # of a column (n, 6) of one member
_PREFIX = "member/"
PASSES = 1000  # that new broken images are counted for


def member_column(position: int, name: str) -> str:
    """The name of the column of the attack ``name``, which is number ``position`` of its ensemble."""
    return f"{_PREFIX}{position}/{name}"


def is_member(column: str) -> bool:
    """Whether a batch's column is one of :func:`member_column`; such are summed up and not kept sample by sample."""
    return column.startswith(_PREFIX)


def member_facts(columns: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One entry for each attack of an ensemble, in their order; none for a single attack.

    Args:
        columns: one mapping a batch; a batch of which nothing was left lacks the later attacks.

    Returns:
        ``attack``, how many images were ``standing`` when it came, on how many it ``attacked`` and how many it had
        ``broken``, whether it was only ``sampled`` in some batch, its ``forwards`` and ``backwards`` on all of them
        together, and ``broken_per_1000_passes`` of either kind (None without a pass).
    """
    names = sorted({name for part in columns for name in part if is_member(name)}, key=_position)
    found = []
    for name in names:
        sums = np.sum([part[name].sum(0) for part in columns if name in part], axis=0)
        facts: dict[str, Any] = {"attack": name.split("/", 2)[2], **dict(zip(FIELDS, sums.tolist(), strict=True))}
        facts["sampled"] = facts["sampled"] > 0
        passes = facts["forwards"] + facts["backwards"]
        facts["broken_per_1000_passes"] = PASSES * facts["broken"] / passes if passes else None
        found.append(facts)
    return found


def member_words(members: Sequence[Mapping[str, Any]]) -> str:
    """An ensemble's members in one line, in their order: what each broke, and for how many passes."""
    told = []
    for one in members:
        gain = one["broken_per_1000_passes"]
        tried = f" tried on {one['attacked']} of {one['standing']}" if one["sampled"] else f" of {one['standing']}"
        told.append(f"{one['attack']} {'-' if gain is None else f'{gain:.3g}'} ({one['broken']}{tried})")
    return ", ".join(told)


def _position(column: str) -> int:
    return int(column.split("/", 2)[1])
