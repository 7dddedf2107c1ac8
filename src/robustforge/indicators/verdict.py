"""What ``result.json`` says beside its numbers: indicators, verdicts, abstention, differences, thresholds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from robustforge.indicators.evidence import Evidence, gather
from robustforge.indicators.rules import judge, judge_worst, plain_indicators, violations
from robustforge.records.abstention import abstention
from robustforge.records.statistics import paired_difference
from robustforge.records.summary import Cell, outcomes, worst_outcomes
from robustforge.records.table import CLEAN, Records, same_eps

ROBUST = "robust accuracy"
UNRELIABLE = "unreliable"
UNTESTED = "no iterated white-box attack"
UNEVADED = "no iterated attack on the detector"


def judged_cells(
    records: Records, cells: Sequence[Cell], worst: Sequence[Cell], strict: bool
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """What is added to every cell of the table, and to every worst case.

    Args:
        records: behind them.
        cells: of the table.
        worst: the worst cases.
        strict: whether the protocol states verdicts: ``unreliable`` where an indicator is violated. Only a worst case
            may be called a robust accuracy, and only where an iterated white-box attack stands behind it; of a system
            that may reject, only where one of them tried to evade the rejection.
    """
    seen = gather(records)
    judged = judge(seen)
    clean = {(one.key.system, one.key.rate): one.part for one in seen if one.kind == "clean"}
    told, told_worst = [], []
    for cell in cells:
        part = records.cells[cell.key]
        found = judged.get(cell.key, [])
        more: dict[str, Any] = {"indicators": plain_indicators(found), "violated": violations(found)}
        if strict and cell.attack != CLEAN:
            more["verdict"] = UNRELIABLE if more["violated"] else None
        told.append(more | {"abstention": abstention(part, clean.get((cell.system, cell.rate)))})
    for cell in worst:
        spoken = judge_worst(seen, judged, cell.system, cell.norm, cell.eps, cell.rate)
        more = {"indicators": plain_indicators(spoken or []), "violated": violations(spoken)}
        if spoken is None and strict:
            more["violated"] = [UNTESTED]
        elif strict and not _detector_attacked(seen, cell):
            more["violated"].append(UNEVADED)
        if strict:
            more["verdict"] = UNRELIABLE if more["violated"] else ROBUST
        told_worst.append(more)
    return told, told_worst


def _detector_attacked(seen: Sequence[Evidence], cell: Cell) -> bool:
    """Whether an iterated attack that evades stands behind a worst case; True for a system that rejects nothing."""
    here = [
        one
        for one in seen
        if (one.key.system, one.key.norm, one.key.rate) == (cell.system, cell.norm, cell.rate)
        and same_eps(one.key.eps, cell.eps)
        and not one.key.check
    ]
    if not any(one.rejects for one in here):
        return True
    return any(one.evades and one.kind == "iterative" for one in here)


def comparisons(records: Records, cells: Sequence[Cell], worst: Sequence[Cell], defense: str) -> list[dict[str, Any]]:
    """The defense minus every other row, clean and in the worst case: paired bootstrap over the shared samples."""
    made = []
    for cell in [*(c for c in cells if c.attack == CLEAN), *worst]:
        if cell.system == defense:
            for other in [*(c for c in cells if c.attack == CLEAN), *worst]:
                same = (other.attack, other.norm, other.eps) == (cell.attack, cell.norm, cell.eps)
                if other.system != defense and same and other.rate in (None, cell.rate):
                    difference = paired_difference(_held(records, cell), _held(records, other))
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


def _held(records: Records, cell: Cell) -> Any:
    if cell.attack == CLEAN:
        return outcomes(records.cells[cell.key])
    return worst_outcomes(records, cell.system, cell.norm, cell.eps, rate=cell.rate)


def thresholds(records: Records, calibration_images: int | None) -> list[dict[str, Any]]:
    """The thresholds on risk, one a system and rate, and how many held-out images they were fitted on."""
    found: dict[tuple[str, float], float] = {}
    for key, part in records.cells.items():
        value = float(part["threshold"][0])
        if key.rate is not None and np.isfinite(value):
            found.setdefault((key.system, key.rate), value)
    return [
        {"system": system, "rate": rate, "value": value, "calibration_images": calibration_images}
        for (system, rate), value in found.items()
    ]
