"""What ``result.json`` says beside its numbers: indicators, verdicts, abstention, differences, thresholds."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from robustforge.indicators.evidence import Evidence, at_budget, gather
from robustforge.indicators.judging import judge, judge_worst, plain_indicators, violations
from robustforge.records.abstention import abstention
from robustforge.records.statistics import Outcomes, paired_difference
from robustforge.records.summary import Cell, outcomes, worst_outcomes
from robustforge.records.table import CLEAN, Records

ROBUST = "robust accuracy"
UNRELIABLE = "unreliable"
# reasons for which a worst case is unreliable though no indicator is violated
UNTESTED = "no iterated white-box attack"
UNEVADED = "no iterated attack on the detector"
UNAVERAGED = "answers at random, and no iterated attack on the surface eot"
Judgment = dict[str, Any]  # what is added to a cell


def judged_cells(
    records: Records, cells: Sequence[Cell], worst: Sequence[Cell], strict: bool, random: Collection[str] = ()
) -> tuple[list[Judgment], list[Judgment]]:
    """What is added to every cell of the table, and to every worst case.

    Args:
        records: that they were computed from.
        cells: of the table.
        worst: the worst cases.
        strict: whether the protocol states verdicts: ``unreliable`` where an indicator is violated. Only a worst case
            may be called a robust accuracy, and only if an iterated white-box attack is part of it; of a system that
            may reject, only if one of these tried to evade the rejection; of one that answers at random, only if one
            of these averaged over its draws. A worst case in which no image stands needs no support: it is an upper
            bound of 0, whatever the attacks behind it are.
        random: systems that answer at random.
    """
    evidence = gather(records)
    judged = judge(evidence)
    clean = {(one.key.system, one.key.rate): one.part for one in evidence if one.kind == "clean"}
    added: list[Judgment] = []
    for cell in cells:
        found = judged.get(cell.key, [])
        more: Judgment = {"indicators": plain_indicators(found), "violated": violations(found)}
        if strict and cell.attack != CLEAN:
            more["verdict"] = UNRELIABLE if more["violated"] else None
        more["abstention"] = abstention(records.cells[cell.key], clean.get((cell.system, cell.rate)))
        added.append(more)
    added_worst: list[Judgment] = []
    for cell in worst:
        indicators = judge_worst(evidence, judged, cell.system, cell.norm, cell.eps, cell.rate)
        against = violations(indicators)
        if strict and indicators is None:
            against = [UNTESTED]
        elif strict and not _detector_attacked(evidence, cell):
            against.append(UNEVADED)
        if strict and cell.system in random and not _draws_averaged(evidence, cell):
            against.append(UNAVERAGED)
        if cell.accuracy == 0:
            against = []
        more = {"indicators": plain_indicators(indicators), "violated": against}
        if strict:
            more["verdict"] = UNRELIABLE if against else ROBUST
        added_worst.append(more)
    return added, added_worst


def _draws_averaged(evidence: Sequence[Evidence], cell: Cell) -> bool:
    """Whether a worst case contains an iterated attack on the surface that averages over draws."""
    here = at_budget(evidence, cell.system, cell.norm, cell.eps, cell.rate)
    return any(one.key.surface == "eot" and one.kind == "iterative" for one in here)


def _detector_attacked(evidence: Sequence[Evidence], cell: Cell) -> bool:
    """Whether a worst case contains an iterated attack that evades; True for a system that rejects nothing."""
    here = at_budget(evidence, cell.system, cell.norm, cell.eps, cell.rate)
    if not any(one.rejects for one in here):
        return True
    return any(one.evades and one.kind == "iterative" for one in here)


def comparisons(records: Records, cells: Sequence[Cell], worst: Sequence[Cell], defense: str) -> list[dict[str, Any]]:
    """The defense minus every other row, clean and in the worst case: paired bootstrap over the shared samples."""
    compared = [*(cell for cell in cells if cell.attack == CLEAN), *worst]
    made = []
    for cell in compared:
        for other in compared:
            same = (other.attack, other.norm, other.eps) == (cell.attack, cell.norm, cell.eps)
            if cell.system != defense or other.system == defense or not same or other.rate not in (None, cell.rate):
                continue
            difference = paired_difference(_outcomes(records, cell), _outcomes(records, other))
            made.append(
                {
                    "first": defense,
                    "second": other.system,
                    "attack": cell.attack,
                    "norm": cell.norm,
                    "eps": cell.eps,
                    "rate": cell.rate,
                    **asdict(difference),
                }
            )
    return made


def _outcomes(records: Records, cell: Cell) -> Outcomes:
    if cell.attack == CLEAN:
        return outcomes(records.cells[cell.key])
    return worst_outcomes(records, cell.system, cell.norm, cell.eps, rate=cell.rate)


def thresholds(records: Records, calibration_images: int | None) -> list[dict[str, Any]]:
    """The thresholds on risk, one a system and rate, and the number of held-out images that they were fitted on."""
    found: dict[tuple[str, float], float] = {}
    for key, part in records.cells.items():
        value = float(part["threshold"][0])
        if key.rate is not None and np.isfinite(value):
            found.setdefault((key.system, key.rate), value)
    return [
        {"system": system, "rate": rate, "value": value, "calibration_images": calibration_images}
        for (system, rate), value in found.items()
    ]
