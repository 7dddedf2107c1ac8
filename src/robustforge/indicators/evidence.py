"""What indicators are made of: recorded cells, what kind of attack each shows, and how two of them compare."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from robustforge.records.statistics import Outcomes, mcnemar, paired_difference, wilson
from robustforge.records.summary import outcomes
from robustforge.records.table import CLEAN, CellKey, Records, same_eps

ALPHA = 0.01  # level of the comparisons; low, because many are made
LEAST = 1.0  # points: smaller differences between two attacks violate nothing
GAIN = 3.0  # points: what a longer variant of the same attack may gain


@dataclass(frozen=True)
class Indicator:
    """One indicator of one cell.

    Attributes:
        name: a key of ``rules.MEANING``.
        violated: whether it speaks against the number.
        value: what was measured: a share in percent, or a difference in points.
        threshold: the value above which the indicator is violated, as far as the sample allows to say so; same unit.
        n: samples that the value is computed from.
        by: the cell compared with, in words, or empty.
    """

    name: str
    violated: bool
    value: float
    threshold: float
    n: int
    by: str = ""


@dataclass(frozen=True)
class Evidence:
    """One recorded cell.

    Attributes:
        key: its name.
        part: its records.
        outcomes: on which samples the attack did not succeed (clean: which are right and accepted).
        kind: of attack, see :func:`kind_of`.
    """

    key: CellKey
    part: Records
    outcomes: Outcomes
    kind: str

    @property
    def accuracy(self) -> float:
        """Share in [0, 1] of samples on which the attack did not succeed."""
        return float(self.outcomes.correct.mean()) if len(self.outcomes.correct) else 0.0

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


def comparable(cell: Evidence, cells: Sequence[Evidence]) -> list[Evidence]:
    """What a cell may be compared with: the same system at the same threshold, in the same norm or clean."""
    return [
        other
        for other in cells
        if other.key.system == cell.key.system
        and other.key.rate == cell.key.rate
        and (other.key.norm == cell.key.norm or other.kind == "clean")
        and other is not cell
    ]


def at_budget(cells: Sequence[Evidence], system: str, norm: str, eps: float, rate: float | None) -> list[Evidence]:
    """The cells of a system at one budget and one threshold, without checks."""
    return [
        cell
        for cell in cells
        if (cell.key.system, cell.key.norm, cell.key.rate, cell.key.check) == (system, norm, rate, "")
        and same_eps(cell.key.eps, eps)
    ]


def variants(cell: Evidence, others: Sequence[Evidence], check: str) -> list[Evidence]:
    """The same attack on the same surface: as a check, or (empty ``check``) at other budgets."""
    wanted = (cell.key.attack, cell.key.surface, check)
    return [other for other in others if (other.key.attack, other.key.surface, other.key.check) == wanted]


def same_budget(cell: Evidence, others: Sequence[Evidence]) -> list[Evidence]:
    """Those at this cell's own budget."""
    return [other for other in others if same_eps(other.key.eps, cell.key.eps)]


def share(name: str, count: int, n: int, threshold: float, by: str = "") -> Indicator | None:
    """Violated where ``count`` of ``n`` is significantly more than ``threshold`` percent; None without a sample."""
    if not n:
        return None
    return Indicator(name, wilson(count, n)[0] > threshold, 100 * count / n, threshold, n, by)


def as_far_as_told(own: Outcomes, other: Outcomes) -> tuple[Outcomes, Outcomes]:
    """Both on the samples of both, equal on those that one of the two attacks skipped.

    What had broken such a sample may have been a third attack, so that it says nothing about which of the two is the
    stronger one; it still counts as a sample.
    """
    index, i, j = np.intersect1d(own.index, other.index, assume_unique=True, return_indices=True)
    silent = np.zeros(len(index), dtype=bool)
    for one, place in ((own, i), (other, j)):
        silent |= False if one.skipped is None else one.skipped[place]
    return Outcomes(index, own.correct[i]), Outcomes(index, np.where(silent, own.correct[i], other.correct[j]))


def compare(name: str, own: Outcomes, other: Outcomes, by: str = "") -> Indicator:
    """Violated where the other attack succeeds significantly more often; the value is by how many points."""
    a, b = (one.correct for one in as_far_as_told(own, other))
    n, only_other, only_own = len(a), int((a & ~b).sum()), int((b & ~a).sum())
    points = 100 * (only_other - only_own) / n if n else 0.0
    violated = points >= LEAST and mcnemar(only_other, only_own) < ALPHA
    return Indicator(name, violated, points, LEAST, n, by)


def compare_strongest(name: str, own: Outcomes, challengers: Sequence[Evidence]) -> Indicator | None:
    """The comparison that speaks most against ``own``, or None without a challenger."""
    found = [compare(name, own, other.outcomes, cell_words(other.key)) for other in challengers]
    return max(found, key=lambda indicator: (indicator.violated, indicator.value), default=None)


def gain_of(name: str, cell: Evidence, longer: Evidence) -> Indicator:
    """Violated where the lower end of the paired bootstrap of what the longer attack gains is above ``GAIN``."""
    gain = paired_difference(*as_far_as_told(cell.outcomes, longer.outcomes))
    return Indicator(name, gain.low > GAIN, gain.points, GAIN, gain.n, cell_words(longer.key))


def cell_words(key: CellKey) -> str:
    """A cell in words, for the ``by`` of an indicator."""
    return f"{key.attack} on {key.surface} at {key.eps:.4g}" + (f" ({key.check})" if key.check else "")
