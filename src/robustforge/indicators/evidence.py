"""What indicators are made of: recorded cells, what kind of attack each shows, and how two of them compare."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from robustforge.records.statistics import Outcomes, mcnemar, paired_difference, shared, wilson
from robustforge.records.summary import outcomes
from robustforge.records.table import CLEAN, CellKey, Records, same_eps

ALPHA = 0.01  # of the comparisons; many are made
LEAST = 1.0  # points


@dataclass(frozen=True)
class Indicator:
    """One indicator of one cell.

    Attributes:
        name: a key of ``indicators.MEANING``.
        violated: whether it speaks against the number.
        value: what was measured: a share in percent, or a difference in points.
        threshold: where the value begins to speak against the number, in the same unit.
        n: samples behind it.
        by: the cell compared with, or empty.
    """

    name: str
    violated: bool
    value: float
    threshold: float
    n: int
    by: str = ""


@dataclass(frozen=True)
class Evidence:
    """One cell's records, and what kind of attack they show."""

    key: CellKey
    part: Records
    held: Outcomes
    kind: str

    @property
    def accuracy(self) -> float:
        """Share in [0, 1] of samples that stand."""
        return float(self.held.correct.mean()) if len(self.held.correct) else 0.0

    @property
    def evades(self) -> bool:
        """Whether its attack lowers the risk of a system that may reject."""
        return bool(self.part["evades"].any())

    @property
    def rejects(self) -> bool:
        """Whether its system may reject at all."""
        return bool(np.isfinite(self.part["threshold"]).any())


def gather(records: Records) -> list[Evidence]:
    """Every recorded cell, clean ones and checks included."""
    return [Evidence(key, part, outcomes(part), kind_of(key, part)) for key, part in records.cells.items()]


def kind_of(key: CellKey, part: Records) -> str:
    """``clean``, ``transfer``, ``noise``, ``query``, ``one_step`` or ``iterative``, from names and recorded passes."""
    if key.attack == CLEAN:
        return "clean"
    if key.surface == "transfer":
        return "transfer"
    if "noise" in key.attack:
        return "noise"
    most = int(part["backwards"].max())
    return "query" if most == 0 else "one_step" if most == 1 else "iterative"


def comparable(me: Evidence, cells: Sequence[Evidence]) -> list[Evidence]:
    """What a cell may be compared with: the same system at the same threshold, in the same norm or clean."""
    return [
        one
        for one in cells
        if one.key.system == me.key.system
        and one.key.rate == me.key.rate
        and (one.key.norm == me.key.norm or one.kind == "clean")
        and one is not me
    ]


def twins(me: Evidence, peers: Sequence[Evidence], check: str) -> list[Evidence]:
    """The same attack on the same surface: as a check, or (empty ``check``) at other budgets."""
    return [
        one
        for one in peers
        if one.key.check == check and one.key.attack == me.key.attack and one.key.surface == me.key.surface
    ]


def same_budget(me: Evidence, found: Sequence[Evidence]) -> list[Evidence]:
    """Those at this cell's own budget."""
    return [one for one in found if same_eps(one.key.eps, me.key.eps)]


def share(name: str, count: int, n: int, threshold: float, by: str = "") -> Indicator | None:
    """Violated where ``count`` of ``n`` is significantly more than ``threshold`` percent; None without a sample."""
    if not n:
        return None
    return Indicator(name, wilson(count, n)[0] > threshold, 100 * count / n, threshold, n, by)


def compare(name: str, mine: Outcomes, theirs: Outcomes, by: str = "") -> Indicator:
    """Whether ``theirs`` breaks more than ``mine``; the value is by how many points."""
    a, b = shared(mine, theirs)
    n, only_theirs, only_mine = len(a), int((a & ~b).sum()), int((b & ~a).sum())
    points = 100 * (only_theirs - only_mine) / n if n else 0.0
    violated = points >= LEAST and mcnemar(only_theirs, only_mine) < ALPHA
    return Indicator(name, violated, points, LEAST, n, by)


def worst_of(name: str, mine: Outcomes, challengers: Sequence[Evidence]) -> Indicator | None:
    """The comparison that speaks most against ``mine``, or None without a challenger."""
    found = [compare(name, mine, one.held, cell_words(one.key)) for one in challengers]
    return max(found, key=lambda indicator: (indicator.violated, indicator.value), default=None)


def cell_words(key: CellKey) -> str:
    """A cell in words, for the ``by`` of an indicator."""
    return f"{key.attack} on {key.surface} at {key.eps:.4g}" + (f" ({key.check})" if key.check else "")


def gain_of(name: str, me: Evidence, stronger: Evidence, threshold: float = 3.0) -> Indicator:
    """Points that a stronger variant of the same attack breaks more, by the paired bootstrap's lower end."""
    gain = paired_difference(me.held, stronger.held)
    return Indicator(name, gain.low > threshold, gain.points, threshold, gain.n, cell_words(stronger.key))
