"""Records to numbers: accuracies with their intervals, and worst cases that are taken per sample."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np

from robustforge.reporting.record_table import CLEAN, CellKey, Records, read_records, same_eps
from robustforge.reporting.statistics import Difference, Outcomes, paired_difference, wilson

__all__ = [
    "CLEAN",
    "WORST",
    "Cell",
    "CellKey",
    "Difference",
    "Outcomes",
    "Records",
    "outcomes",
    "paired_difference",
    "read_records",
    "same_eps",
    "summarise",
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


def outcomes(cell: Records) -> Outcomes:
    """Per-sample outcomes of one cell's records, by sample."""
    order = np.argsort(cell["index"], kind="stable")
    clean = cell["attack"] == CLEAN
    right = (cell["prediction"] == cell["label"]) & cell["accepted"].astype(bool)
    return Outcomes(cell["index"][order], np.where(clean, right, ~cell["success"].astype(bool))[order])


def summarise(source: Any) -> list[Cell]:
    """Every recorded cell as a number, in the order of recording."""
    return [_cell(key, part, outcomes(part)) for key, part in read_records(source).cells.items()]


def _cell(key: CellKey, part: Records, held: Outcomes) -> Cell:
    def mean(name: str) -> float:
        return float(part[name].astype(float).mean())

    accuracy, interval = _accuracy(held)
    rejected = 100 * (1 - mean("accepted"))
    return Cell(
        *key, len(part), accuracy, interval, rejected, mean("linf"), mean("l2"), mean("forwards"), mean("backwards"),
        _one_seed(part),
    )  # fmt: skip


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
    surfaces: Collection[str] | None,
    attacks: Collection[str] | None,
) -> list[Records]:
    """The system's clean cell, if recorded, and every attack on it at that budget."""
    clean, attacked = [], []
    for key, part in records.cells.items():
        if key.system != system:
            continue
        if key.attack == CLEAN:
            clean.append(part)
            continue
        wanted = (surfaces is None or key.surface in surfaces) and (attacks is None or key.attack in attacks)
        if wanted and key.norm == norm and same_eps(key.eps, eps):
            attacked.append(part)
    if not attacked:
        raise ValueError(f"No attack on '{system}' was recorded at {norm} {eps:.5g}: choose a recorded budget.")
    return clean + attacked


def _combine(parts: list[Records]) -> Outcomes:
    held = [outcomes(part) for part in parts]
    index = reduce(np.intersect1d, [one.index for one in held])
    return Outcomes(index, np.logical_and.reduce([one.correct[np.searchsorted(one.index, index)] for one in held]))


def worst_outcomes(
    source: Any,
    system: str,
    norm: str,
    eps: float,
    surfaces: Collection[str] | None = None,
    attacks: Collection[str] | None = None,
) -> Outcomes:
    """Per sample: clean image right and accepted, and no recorded attack at that budget succeeded.

    Only samples that every cell holds are judged: a sample that one attack skipped would look robust to it.
    """
    return _combine(_attacked(read_records(source), system, norm, eps, surfaces, attacks))


def worst_case(
    source: Any,
    system: str,
    norm: str,
    eps: float,
    surfaces: Collection[str] | None = None,
    attacks: Collection[str] | None = None,
) -> Cell:
    """The robust accuracy of a system at a budget: the worst case per sample, clean errors and refusals included.

    Args:
        source: anything that ``read_records`` takes.
        system: row name.
        norm: of the budget.
        eps: of the budget, pixel units.
        surfaces: only attacks on these, or all.
        attacks: only these attacks, or all.

    Raises:
        ValueError: no such attack was recorded at that budget.
    """
    parts = _attacked(read_records(source), system, norm, eps, surfaces, attacks)
    held = _combine(parts)
    accuracy, interval = _accuracy(held)
    passes = [sum(float(part[name].mean()) for part in parts) for name in ("forwards", "backwards")]
    seeds = {_one_seed(part) for part in parts}
    surface = "all" if surfaces is None else "+".join(sorted(surfaces))
    return Cell(
        system, WORST, surface, norm, eps, len(held.index), accuracy, interval, math.nan, math.nan, math.nan,
        passes[0], passes[1], seeds.pop() if len(seeds) == 1 else None,
    )  # fmt: skip
