"""Numbers of a paper's table that a summary of cells does not hold: they are computed from the records themselves."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from robustforge.records.detection import Detection, detection
from robustforge.records.statistics import wilson
from robustforge.records.table import CLEAN, CellKey, Records, same_eps

FALSE_POSITIVES = {f"false_positives_{share}": share / 100 for share in (90, 95, 98, 99)}  # at so many percent detected
DETECTION = ("auroc_flipped", "flipped", "missed", *FALSE_POSITIVES)
DISTORTION = ("mean_l2_ratio", "median_l2_ratio")
RISK = "risk_99"
METRICS = (*DETECTION, *DISTORTION, RISK)


@dataclass(frozen=True)
class Selection:
    """Which recorded cells of a run a number is computed from; checks never belong to them.

    Attributes:
        system: row of the run.
        attacks: names; several are counted together.
        surface: where they ran.
        norm: of the budget, or None for any.
        eps: the budget in units of [0, 1] pixels, or None for all budgets together.
        rate: false-positive rate of the threshold, or None for any.
    """

    system: str
    attacks: tuple[str, ...]
    surface: str
    norm: str | None = None
    eps: float | None = None
    rate: float | None = None

    def attacked(self, records: Records) -> dict[CellKey, Records]:
        """The attacked cells."""
        return {
            key: part
            for key, part in records.cells.items()
            if key.attack in self.attacks
            and key.surface == self.surface
            and self.norm in (None, key.norm)
            and (self.eps is None or same_eps(key.eps, self.eps))
            and self._here(key)
        }

    def clean(self, records: Records) -> Records | None:
        """The same system's clean cell, or None."""
        cells = records.cells.items()
        return next((part for key, part in cells if key.attack == CLEAN and self._here(key)), None)

    def _here(self, key: CellKey) -> bool:
        return key.system == self.system and self.rate in (None, key.rate) and not key.check


def measure(
    metric: str,
    selection: Selection,
    records: Records | None,
    baseline: Records | None,
    baseline_system: str | None = None,
) -> tuple[dict[str, Any] | None, str]:
    """One number.

    Args:
        metric: ``auroc_flipped`` (of risk: images that were right and are wrong against right clean ones), ``flipped``
            (share of right images that became wrong), ``missed`` (share that became wrong and is accepted),
            ``risk_99`` (99th percentile of risk, times 100),
            ``false_positives_90`` (of right clean images, at the threshold that catches 90 % of those that became
            wrong; also 95, 98 and 99),
            ``mean_l2_ratio`` (mean L2 of the successes over the baseline's) or ``median_l2_ratio`` (median over all
            images that were right, failures counting as infinite, over the baseline's median success on them).
        selection: of which cells.
        records: of the run.
        baseline: records of the run that distortions are divided by; the same attack on the same surface there.
        baseline_system: its system, if another one, which is always attacked end to end.

    Returns:
        (what a cell of ``result.json`` would hold: ``accuracy`` in percent, ``interval``, ``n``, ``seed``; or None, the
        reason why there is none).
    """
    if records is None:
        return None, "not run: the records are not at hand"
    cells, clean, attack = list(selection.attacked(records).values()), selection.clean(records), selection.attacks[0]
    if metric == RISK and attack == CLEAN:
        cells = [] if clean is None else [clean]
    if not cells or clean is None:
        return None, f"not run: {attack} on {selection.surface}"
    seeds = {int(seed) for part in cells for seed in np.unique(part["seed"])}
    common = {"attack": attack, "seed": seeds.pop() if len(seeds) == 1 else None}
    if metric == RISK:
        risk = np.concatenate([part["risk"] for part in cells])
        return common | {"accuracy": 100 * float(np.percentile(risk, 99)), "interval": None, "n": len(risk)}, ""
    if metric in DETECTION:
        return common | _detection(metric, detection(cells, clean)), ""
    if baseline is None:
        return None, "not run: the run that distortions are divided by"
    if baseline_system:
        selection = replace(selection, system=baseline_system, surface="end_to_end")
    others = list(selection.attacked(baseline).values())
    if len(cells) != 1 or len(others) != 1:
        return None, "not run uniquely: give norm and eps"
    found = _distortion(metric, cells[0], clean, others[0])
    return (None, found) if isinstance(found, str) else (common | found, "")


def gather_detection(selection: Selection, records: Records) -> Detection | None:
    """What the numbers of detection are computed from, or None where nothing of the kind was recorded."""
    cells, clean = list(selection.attacked(records).values()), selection.clean(records)
    return detection(cells, clean) if cells and clean is not None else None


def _detection(metric: str, seen: Detection) -> dict[str, Any]:
    flipped = len(seen.positive)
    if metric == "auroc_flipped":
        area = seen.auroc
        return {"accuracy": None if np.isnan(area) else area, "interval": seen.interval, "n": flipped}
    if metric in FALSE_POSITIVES:
        return _false_positives(seen, FALSE_POSITIVES[metric])
    hits = flipped if metric == "flipped" else seen.missed
    share = 100 * hits / seen.attacked if seen.attacked else None
    return {"accuracy": share, "interval": wilson(hits, seen.attacked), "n": seen.attacked}


def _false_positives(seen: Detection, detected: float) -> dict[str, Any]:
    rate, n = seen.false_positives(detected), len(seen.negative)
    if np.isnan(rate):
        return {"accuracy": None, "interval": None, "n": n}
    return {"accuracy": rate, "interval": wilson(round(rate / 100 * n), n), "n": n}


def _distortion(metric: str, part: Records, clean: Records, other: Records) -> dict[str, Any] | str:
    """Of the images that the victim labels right and that both runs attacked."""
    known = clean["index"][clean["prediction"] == clean["label"]]
    shared = np.intersect1d(np.intersect1d(part["index"], other["index"]), known)
    mine, base = part.where(np.isin(part["index"], shared)), other.where(np.isin(other["index"], shared))
    reached, reached_before = mine["success"], base["success"]
    if not reached.any() or not reached_before.any():
        return "no attack succeeded, here or without defenders"
    if metric == "mean_l2_ratio":
        ratio, n = mine["l2"][reached].mean() / base["l2"][reached_before].mean(), int(reached.sum())
    else:
        middle = float(np.median(np.where(reached, mine["l2"], np.inf)))
        if not np.isfinite(middle):
            return "the attack fails on half of the images: their median distortion is the budget"
        ratio, n = middle / np.median(base["l2"][reached_before]), len(shared)
    return {"accuracy": 100 * float(ratio), "interval": None, "n": n}
