"""Figures of a paper's table that a summary of cells does not hold: they are taken from the records themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from robustforge.records.detection import Detection, detection
from robustforge.records.statistics import wilson
from robustforge.records.table import CLEAN, CellKey, Records, same_eps

DETECTION = ("auroc_flipped", "flipped", "missed")
DISTORTION = ("mean_l2_ratio", "median_l2_ratio")
METRICS = (*DETECTION, *DISTORTION)


def measure(
    where: Mapping[str, Any], surface: str, records: Records | None, baseline: Records | None
) -> tuple[dict[str, Any] | None, str]:
    """One figure.

    Args:
        where: ``metric``; ``system``, ``attack``, ``pool`` (further attacks, counted together with it) and, where they
            are to be told apart, ``norm``, ``eps`` and ``rate``. Without ``eps`` all budgets are counted together.
            ``metric`` is ``auroc_flipped`` (of risk: images that were right and are wrong against right clean ones),
            ``flipped`` (share of right images that became wrong), ``missed`` (share that became wrong and is accepted),
            ``mean_l2_ratio`` (mean L2 of the successes over the baseline's) or ``median_l2_ratio`` (median over all
            images that were right, failures counting as infinite, over the baseline's median success on them).
        surface: where the attack ran.
        records: of the run.
        baseline: records of the run that distortions are divided by; the same attack on the same surface there.

    Returns:
        (what a cell of ``result.json`` would hold: ``accuracy`` in percent, ``interval``, ``n``, ``seed``; or None, the
        reason why there is none).
    """
    if records is None:
        return None, "not run: the records are not at hand"
    cells, clean = _cells(where, surface, records), _clean(where, records)
    if not cells or clean is None:
        return None, f"not run: {where['attack']} on {surface}"
    seeds = {int(seed) for part in cells for seed in np.unique(part["seed"])}
    common = {"attack": where["attack"], "seed": seeds.pop() if len(seeds) == 1 else None}
    if where["metric"] in DETECTION:
        return common | _detection(where["metric"], detection(cells, clean)), ""
    if baseline is None:
        return None, "not run: the run that distortions are divided by"
    others = _cells(where, surface, baseline)
    if len(cells) != 1 or len(others) != 1:
        return None, "not run uniquely: give norm and eps"
    found = _distortion(where["metric"], cells[0], clean, others[0])
    return (None, found) if isinstance(found, str) else (common | found, "")


def gather_detection(where: Mapping[str, Any], surface: str, records: Records) -> Detection | None:
    """What the figures of detection are computed from, or None where nothing of the kind was recorded."""
    cells, clean = _cells(where, surface, records), _clean(where, records)
    return detection(cells, clean) if cells and clean is not None else None


def _cells(where: Mapping[str, Any], surface: str, records: Records) -> list[Records]:
    attacks, rate = (where["attack"], *where.get("pool", ())), where.get("rate")

    def wanted(key: CellKey) -> bool:
        budget = where.get("norm") in (None, key.norm) and (
            where.get("eps") is None or same_eps(key.eps, float(where["eps"]))
        )
        named = key.system == where["system"] and key.attack in attacks and key.surface == surface
        return named and budget and rate in (None, key.rate) and not key.check

    return [part for key, part in records.cells.items() if wanted(key)]


def _clean(where: Mapping[str, Any], records: Records) -> Records | None:
    rate = where.get("rate")
    found = (
        part
        for key, part in records.cells.items()
        if key.system == where["system"] and key.attack == CLEAN and rate in (None, key.rate)
    )
    return next(found, None)


def _detection(metric: str, seen: Detection) -> dict[str, Any]:
    turned = len(seen.positive)
    if metric == "auroc_flipped":
        area = seen.auroc
        return {"accuracy": None if np.isnan(area) else area, "interval": seen.interval, "n": turned}
    hits = turned if metric == "flipped" else seen.missed
    share = 100 * hits / seen.attacked if seen.attacked else None
    return {"accuracy": share, "interval": wilson(hits, seen.attacked), "n": seen.attacked}


def _distortion(metric: str, part: Records, clean: Records, other: Records) -> dict[str, Any] | str:
    """Of the images that the victim labels right and that both runs attacked."""
    known = clean["index"][clean["prediction"] == clean["label"]]
    shared = np.intersect1d(np.intersect1d(part["index"], other["index"]), known)
    mine, base = part.where(np.isin(part["index"], shared)), other.where(np.isin(other["index"], shared))
    reached, reached_before = mine["success"].astype(bool), base["success"].astype(bool)
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
