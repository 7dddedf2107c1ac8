"""What each attack adds to a worst case, and how a worst case spreads over the classes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from robustforge.records.statistics import wilson
from robustforge.records.summary import outcomes, worst_outcomes
from robustforge.records.table import CLEAN, CellKey, Records, same_eps


@dataclass(frozen=True)
class Contribution:
    """One attack's part in a worst case, in percent of the images.

    Attributes:
        key: its cell.
        broken: images on which it succeeds, or that are wrong when clean.
        added: of these, the ones that no stronger attack of the list has broken.
        alone: of these, the ones that no other attack breaks.
        left: images that are still right after this attack and all stronger ones.
    """

    key: CellKey
    broken: float
    added: float
    alone: float
    left: float


def contributions(records: Records, system: str, norm: str, eps: float, rate: float | None) -> list[Contribution]:
    """The attacks of one worst case, the strongest first; only images that all of them hold count.

    Args:
        records: with the system's cells; checks, which see few images, are left out.
        system: row name.
        norm: of the budget.
        eps: of the budget, pixel units.
        rate: false-positive rate of the system's threshold, or None.

    Returns:
        One a recorded cell, the clean images first where they were recorded; empty without an attack.
    """
    parts = [
        (key, outcomes(part))
        for key, part in records.cells.items()
        if (key.system, key.rate, key.check) == (system, rate, "")
        and (key.attack == CLEAN or (key.norm == norm and same_eps(key.eps, eps)))
    ]
    if not any(key.attack != CLEAN for key, _ in parts):
        return []
    index = parts[0][1].index
    for _, one in parts[1:]:
        index = np.intersect1d(index, one.index)
    if not len(index):
        return []
    broken = {key: ~one.correct[np.searchsorted(one.index, index)] for key, one in parts}
    ordered = sorted(broken, key=lambda key: (key.attack != CLEAN, -int(broken[key].sum())))
    breakers = np.sum([broken[key] for key in ordered], axis=0)
    fallen = np.zeros(len(index), dtype=bool)
    found = []
    for key in ordered:
        added = broken[key] & ~fallen
        fallen |= broken[key]
        shares = (broken[key], added, broken[key] & (breakers == 1), ~fallen)
        found.append(Contribution(key, *(100 * float(share.mean()) for share in shares)))
    return found


@dataclass(frozen=True)
class ClassAccuracy:
    """Of the images of one class: how many, and percent right when clean and in the worst case (low, high: 95 %)."""

    label: int
    n: int
    clean: float | None
    worst: float
    interval: tuple[float, float]


def by_class(records: Records, system: str, norm: str, eps: float, rate: float | None) -> list[ClassAccuracy]:
    """Clean and worst-case accuracy of every class that occurs, by label."""
    worst = worst_outcomes(records, system, norm, eps, rate=rate)
    mine = [(k, p) for k, p in records.cells.items() if (k.system, k.rate, k.check) == (system, rate, "")]
    labels = {int(i): int(y) for _, part in mine for i, y in zip(part["index"], part["label"], strict=True)}
    label = np.array([labels[int(i)] for i in worst.index], dtype=np.int64)
    clean = next((outcomes(part) for key, part in mine if key.attack == CLEAN), None)
    right = None if clean is None else dict(zip(clean.index.tolist(), clean.correct.tolist(), strict=True))
    found = []
    for k in np.unique(label):
        of = label == k
        n, kept = int(of.sum()), int(worst.correct[of].sum())
        held = None if right is None else 100 * float(np.mean([right.get(int(i), False) for i in worst.index[of]]))
        found.append(ClassAccuracy(int(k), n, held, 100 * kept / n, wilson(kept, n)))
    return found


@dataclass(frozen=True)
class Cases:
    """Images that are worth looking at.

    Attributes:
        index: positions in the split, the worst first.
        worst: how many of them are the worst; the others are typical.
    """

    index: list[int]
    worst: int


def cases(records: Records, system: str, norm: str, eps: float, rate: float | None, count: int = 6) -> Cases:
    """The images that most attacks break, and as many typical ones: the first others, in the order of their index.

    Images that are wrong when clean are no cases of an attack and are left out.
    """
    parts = [
        (key, outcomes(part))
        for key, part in records.cells.items()
        if (key.system, key.rate, key.check) == (system, rate, "")
        and (key.attack == CLEAN or (key.norm == norm and same_eps(key.eps, eps)))
    ]
    attacked = [one for key, one in parts if key.attack != CLEAN]
    if not attacked:
        return Cases([], 0)
    wrong: set[int] = {int(i) for key, one in parts if key.attack == CLEAN for i in one.index[~one.correct]}
    times = dict.fromkeys((int(i) for one in attacked for i in one.index), 0)
    for one in attacked:
        for i in one.index[~one.correct]:
            times[int(i)] += 1
    seen = sorted(i for i in times if i not in wrong)
    worst = sorted((i for i in seen if times[i]), key=lambda i: (-times[i], i))[:count]
    return Cases([*worst, *[i for i in seen if i not in set(worst)][:count]], len(worst))
