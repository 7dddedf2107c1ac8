"""Cheap runs that show whether an attack works at all: variants of it, on few images.

============== ======================================================= ================================
check          the attack again, but                                   counts in the worst case
============== ======================================================= ================================
``identity``   at budget 0, where it must change nothing               no
``unbounded``  at a budget where nothing can stand                     no
``restarts``   with 5 restarts (twice as many where it has 5 already)  yes: it stays within the budget
``steps``      with twice as many steps                                yes
============== ======================================================= ================================

What they say about a number is computed from their records, in :mod:`robustforge.indicators.rules`.
"""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from typing import Any

from robustforge.attacks.core.attack import Attack
from robustforge.types import Threat

RESTARTS = 5
FACTOR = 20  # a customary budget in L2, L1 or L0 times this spans the distance between two images


def checks_of(attack: Attack, threat: Threat) -> list[tuple[str, Attack, Threat]]:
    """The checks of one attack at one budget, as (check, attack, threat).

    Attacks of one step and attacks that are no dataclass have none: at a large budget the former legitimately fail.
    Compositions of attacks, which have no ``steps`` of their own, are checked at budget 0 and without bound.
    """
    if not is_dataclass(attack):
        return []
    names = {one.name for one in fields(attack)}
    steps = getattr(attack, "steps", None)
    if not (isinstance(steps, int) and steps > 1) and "attacks" not in names:
        return []
    # a fixed step is made for a fixed budget, where an attack has one of its own by default
    chooses = any(one.name == "step_size" and one.default is None for one in fields(attack))
    free = _with(attack, step_size=None) if chooses else attack
    everything = 1.0 if threat.norm == "linf" else FACTOR * threat.eps
    found = [("identity", attack, Threat(threat.norm, 0.0)), ("unbounded", free, Threat(threat.norm, everything))]
    restarts = getattr(attack, "restarts", None)
    if "restarts" in names and isinstance(restarts, int):
        more = RESTARTS if restarts < RESTARTS else 2 * restarts
        found.append(("restarts", _with(attack, restarts=more), threat))
    if isinstance(steps, int):
        found.append(("steps", _with(attack, steps=2 * steps), threat))
    return found


def _with(attack: Attack, **changed: Any) -> Attack:
    made: Attack = replace(attack, **changed)  # type: ignore[type-var]
    return made
