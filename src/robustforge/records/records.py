"""Records to numbers: accuracies with their intervals, and worst cases that are taken per sample."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np

from robustforge.records.statistics import Difference, Outcomes, paired_difference, wilson
from robustforge.records.table import CLEAN, WITHIN_BUDGET, CellKey, Records, read_records, same_eps

__all__ = [
    "CLEAN",
    "WORST",
    "Cell",
    "CellKey",
    "Difference",
    "Outcomes",
    "Records",
    "combine",
    "outcomes",
    "paired_difference",
    "read_records",
    "same_eps",
    "summarize",
    "worst_case",
    "worst_outcomes",
]

WORST = "worst_case"


@dataclass(frozen=True)
class Cell:
    """One number of a table and what it rests on.

    Attributes:
        accuracy: percent of ``n``. Clean: label right and accepted. Attacked: the attack did not succeed, where a
            success is a wrong label within the budget that the system accepts.
        interval: Wilson's 95 % interval, percent.
        rejected: percent of ``n`` that the system refused.
        mean_linf: mean perturbation, pixel units; NaN for a worst case, which mixes attacks.
        mean_l2: the same in the Euclidean norm.
        forwards: forward passes per image; summed over the attacks for a worst case.
        backwards: backward passes per image.
        seed: of the cell's records, or None where they differ.
        rate: false-positive rate at which the system's threshold was fitted, or None where it accepts everything.
        check: what the cell checks, or empty for a number of the table.
        seconds: wall time, or None where it was not recorded; summed over the attacks for a worst case.
    """

    system: str
    attack: str
    surface: str
    norm: str
    eps: float
    n: int
    accuracy: float
    interval: tuple[float, float]
    rejected: float
    mean_linf: float
    mean_l2: float
    forwards: float
    backwards: float
    seed: int | None
    rate: float | None = None
    check: str = ""
    seconds: float | None = None

    @property
    def key(self) -> CellKey:
        """What names it."""
        return CellKey(self.system, self.attack, self.surface, self.norm, self.eps, self.rate, self.check)


def outcomes(cell: Records) -> Outcomes:
    """Per-sample outcomes of one cell's records, by sample."""
    order = np.argsort(cell["index"], kind="stable")
    clean = cell["attack"] == CLEAN
    right = (cell["prediction"] == cell["label"]) & cell["accepted"].astype(bool)
    return Outcomes(cell["index"][order], np.where(clean, right, ~cell["success"].astype(bool))[order])


def summarize(source: Any, checks: bool = False) -> list[Cell]:
    """Every recorded cell as a number, in the order of recording: those of the table, or the checks."""
    records = read_records(source)
    return [_cell(key, part, records) for key, part in records.cells.items() if bool(key.check) == checks]


def _cell(key: CellKey, part: Records, records: Records) -> Cell:
    def mean(name: str) -> float:
        return float(part[name].astype(float).mean())

    accuracy, interval = _accuracy(outcomes(part))
    return Cell(
        key.system,
        key.attack,
        key.surface,
        key.norm,
        key.eps,
        len(part),
        accuracy,
        interval,
        100 * (1 - mean("accepted")),
        mean("linf"),
        mean("l2"),
        mean("forwards"),
        mean("backwards"),
        _one_seed(part),
        key.rate,
        key.check,
        records.seconds.get(key),
    )


def _accuracy(held: Outcomes) -> tuple[float, tuple[float, float]]:
    n, right = len(held.index), int(held.correct.sum())
    return (100 * right / n if n else math.nan), wilson(right, n)


def _one_seed(part: Records) -> int | None:
    seeds = set(part["seed"].tolist())
    return int(seeds.pop()) if len(seeds) == 1 else None


def _attacked(
    records: Records,
    system: str,
    norm: str,
    eps: float,
    rate: float | None,
    surfaces: Collection[str] | None,
    attacks: Collection[str] | None,
) -> dict[CellKey, Records]:
    """The system's clean cell, if recorded, and every attack on it within that budget, checks last."""
    clean, attacked, checks = {}, {}, {}
    for key, part in records.cells.items():
        if key.system != system or key.rate != rate:
            continue
        if key.attack == CLEAN:
            clean[key] = part
            continue
        wanted = (surfaces is None or key.surface in surfaces) and (attacks is None or key.attack in attacks)
        if wanted and key.norm == norm and same_eps(key.eps, eps):
            if not key.check:
                attacked[key] = part
            elif key.check in WITHIN_BUDGET:
                checks[key] = part
    if not attacked:
        raise ValueError(f"No attack on '{system}' was recorded at {norm} {eps:.5g}: choose a recorded budget.")
    return clean | attacked | checks


def combine(held: Sequence[Outcomes]) -> Outcomes:
    """Per sample: held against all of them. Only samples that all of them saw."""
    index = reduce(np.intersect1d, [one.index for one in held])
    return Outcomes(index, np.logical_and.reduce([one.correct[np.searchsorted(one.index, index)] for one in held]))


def _worst(parts: Mapping[CellKey, Records]) -> Outcomes:
    """What the cells of the table leave, less what checks broke on the samples that they saw."""
    held = combine([outcomes(part) for key, part in parts.items() if not key.check])
    for key, part in parts.items():
        if key.check:
            more = outcomes(part)
            held.correct[np.isin(held.index, more.index[~more.correct])] = False
    return held


def worst_outcomes(
    source: Any,
    system: str,
    norm: str,
    eps: float,
    surfaces: Collection[str] | None = None,
    attacks: Collection[str] | None = None,
    rate: float | None = None,
) -> Outcomes:
    """Per sample: clean image right and accepted, and no recorded attack at that budget succeeded.

    Only samples that every cell of the table holds are judged: a sample that one attack skipped would look robust to
    it. Checks see a subset by design; what they break within the budget counts as broken.
    """
    return _worst(_attacked(read_records(source), system, norm, eps, rate, surfaces, attacks))


def worst_case(
    source: Any,
    system: str,
    norm: str,
    eps: float,
    surfaces: Collection[str] | None = None,
    attacks: Collection[str] | None = None,
    rate: float | None = None,
) -> Cell:
    """The robust accuracy of a system at a budget: the worst case per sample, clean errors and refusals included.

    Args:
        source: anything that ``read_records`` takes.
        system: row name.
        norm: of the budget.
        eps: of the budget, pixel units.
        surfaces: only attacks on these, or all.
        attacks: only these attacks, or all.
        rate: false-positive rate of the system's threshold, or None for records that accept everything.

    Raises:
        ValueError: no such attack was recorded at that budget.
    """
    records = read_records(source)
    parts = _attacked(records, system, norm, eps, rate, surfaces, attacks)
    held = _worst(parts)
    accuracy, interval = _accuracy(held)
    table = [part for key, part in parts.items() if not key.check]  # passes per image of what every image went through
    passes = [sum(float(part[name].mean()) for part in table) for name in ("forwards", "backwards")]
    seeds = {_one_seed(part) for part in parts.values()}
    seconds = [records.seconds[key] for key in parts if key in records.seconds]
    surface = "all" if surfaces is None else "+".join(sorted(surfaces))
    return Cell(
        system,
        WORST,
        surface,
        norm,
        eps,
        len(held.index),
        accuracy,
        interval,
        math.nan,
        math.nan,
        math.nan,
        passes[0],
        passes[1],
        seeds.pop() if len(seeds) == 1 else None,
        rate,
        "",
        sum(seconds) if seconds else None,
    )
