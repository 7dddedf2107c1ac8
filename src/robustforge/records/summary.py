"""Records to numbers: accuracies with their intervals, and worst cases that are taken per sample."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import numpy as np

from robustforge.records.statistics import Outcomes, wilson
from robustforge.records.table import CLEAN, WITHIN_BUDGET, CellKey, Records, read_records, same_eps

WORST = "worst_case"


@dataclass(frozen=True)
class Cell:
    """One number of a table and what it is computed from.

    Attributes:
        system: row of the table.
        attack: its name, ``clean`` or ``worst_case``.
        surface: where the attack ran; for a worst case the surfaces that it is taken over, or ``all``.
        norm: of the budget.
        eps: budget in pixel units of [0, 1].
        n: number of samples.
        accuracy: percent of ``n``. Clean: label right and accepted. Attacked: the attack did not succeed, where a
            success is a wrong label within the budget that the system accepts; images that it skipped because another
            attack had broken them count as broken.
        interval: Wilson's 95 % interval, percent.
        rejected: percent of ``n`` that the system rejected.
        mean_linf: mean perturbation, pixel units; NaN for a worst case, which mixes attacks.
        mean_l2: the same in the Euclidean norm.
        mean_l1: the same in the L1 norm; NaN for records that lack it, as the next two.
        mean_l0: mean number of changed values.
        mean_l0_pixels: mean number of changed positions.
        forwards: forward passes per image; summed over the attacks for a worst case.
        backwards: backward passes per image.
        seed: of the cell's records, or None where they differ.
        rate: false-positive rate at which the system's threshold was fitted, or None where it accepts everything.
        check: what the cell checks, or empty for a number of the table.
        seconds: wall time, or None where it was not recorded; summed over the attacks for a worst case.
        members: what each attack of an ensemble did; empty for a single attack and a worst case.
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
    members: list[dict[str, Any]] = field(default_factory=list)
    mean_l1: float = math.nan
    mean_l0: float = math.nan
    mean_l0_pixels: float = math.nan

    @property
    def key(self) -> CellKey:
        """What names it."""
        return CellKey(self.system, self.attack, self.surface, self.norm, self.eps, self.rate, self.check)


def outcomes(cell: Records) -> Outcomes:
    """Per-sample outcomes of one cell's records, by sample."""
    order = np.argsort(cell["index"], kind="stable")
    if cell.table["attack"][0].as_py() == CLEAN:
        correct = (cell["prediction"] == cell["label"]) & cell["accepted"]
        return Outcomes(cell["index"][order], correct[order])
    correct = ~(cell["success"] | cell["skipped"])
    return Outcomes(cell["index"][order], correct[order], cell["skipped"][order])


def summarize(source: Any, checks: bool = False) -> list[Cell]:
    """Every recorded cell as a number, in the order of recording: those of the table, or the checks."""
    records = read_records(source)
    return [
        Cell(
            **key._asdict(),
            **_accuracy(outcomes(part)),
            rejected=100 * (1 - _mean(part, "accepted")),
            mean_linf=_mean(part, "linf"),
            mean_l2=_mean(part, "l2"),
            mean_l1=_mean(part, "l1"),
            mean_l0=_mean(part, "l0"),
            mean_l0_pixels=_mean(part, "l0_pixels"),
            forwards=_mean(part, "forwards"),
            backwards=_mean(part, "backwards"),
            seed=_one_seed([part]),
            seconds=records.seconds.get(key),
            members=records.members.get(key, []),
        )
        for key, part in records.cells.items()
        if bool(key.check) == checks
    ]


def _accuracy(found: Outcomes) -> dict[str, Any]:
    n, right = len(found.index), int(found.correct.sum())
    return {"n": n, "accuracy": 100 * right / n if n else math.nan, "interval": wilson(right, n)}


def _mean(part: Records, name: str) -> float:
    return float(part[name].astype(float).mean())


def _one_seed(parts: Collection[Records]) -> int | None:
    seeds = {int(seed) for part in parts for seed in np.unique(part["seed"])}
    return seeds.pop() if len(seeds) == 1 else None


def combine(several: Sequence[Outcomes]) -> Outcomes:
    """Per sample: correct in all of them. Only samples that all of them hold."""
    index = reduce(np.intersect1d, [one.index for one in several])
    return Outcomes(index, np.logical_and.reduce([one.correct[np.searchsorted(one.index, index)] for one in several]))


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
    it. Checks see a subset by design; their successes within the budget count.
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
    """The robust accuracy of a system at a budget: the worst case per sample, clean errors and rejections included.

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
    seconds = [records.seconds[key] for key in parts if key in records.seconds]
    table = [part for key, part in parts.items() if not key.check]  # the passes that every image went through
    return Cell(
        system=system,
        attack=WORST,
        surface="all" if surfaces is None else "+".join(sorted(surfaces)),
        norm=norm,
        eps=eps,
        **_accuracy(_worst(parts)),
        rejected=math.nan,
        mean_linf=math.nan,
        mean_l2=math.nan,
        forwards=sum(_mean(part, "forwards") for part in table),
        backwards=sum(_mean(part, "backwards") for part in table),
        seed=_one_seed(parts.values()),
        rate=rate,
        seconds=sum(seconds) if seconds else None,
    )


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


def _worst(parts: Mapping[CellKey, Records]) -> Outcomes:
    """The cells of the table combined; samples on which a check succeeded count as wrong."""
    together = combine([outcomes(part) for key, part in parts.items() if not key.check])
    for key, part in parts.items():
        if key.check:
            check = outcomes(part)
            together.correct[np.isin(together.index, check.index[~check.correct])] = False
    return together
