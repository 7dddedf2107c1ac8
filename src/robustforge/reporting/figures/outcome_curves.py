"""What a system that may refuse does with attacked images: correct, wrong and refused shares against the budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from robustforge.records.abstention import triple
from robustforge.records.table import CLEAN, CellKey, Records, read_records
from robustforge.reporting.figures.style import LINES, MARKERS, color, drawing, save
from robustforge.reporting.text import NORMS

SHARES = {
    "accepted_correct": "accepted, correct",
    "accepted_wrong": "accepted, wrong",
    "rejected": "rejected",
}


def outcome_curves(panels: Sequence[Mapping[str, Any]], sources: Mapping[str, Any], path: str | Path) -> Path | None:
    """One panel a system, attack and norm: the three shares against the budget, with Wilson's 95 % intervals.

    Args:
        panels: each with ``label``, ``run``, ``system``, ``attack``, ``surface`` and ``norm`` (default linf).
        sources: by run: its records (anything that ``read_records`` takes); a run that is missing is left out.
        path: of the PNG.

    Returns:
        The file, or None where no panel has an attacked budget.
    """
    lines = [(panel, shares(panel, sources.get(panel["run"]))) for panel in panels]
    lines = [(panel, points) for panel, points in lines if any(eps > 0 for eps in points)]
    if not lines:
        return None
    with drawing(3.6 * len(lines), 3.2) as figure:
        row = figure.subplots(1, len(lines), sharey=True, squeeze=False)[0]
        for axes, (panel, points) in zip(row, lines, strict=True):
            _panel(axes, str(panel["label"]), points, str(panel.get("norm", "linf")))
        row[0].set_ylabel("share of the test images (%)")
        handles, names = row[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=len(SHARES))
        return save(figure, path)


def shares(panel: Mapping[str, Any], source: Any) -> dict[float, dict[str, dict[str, Any]]]:
    """What :func:`robustforge.records.abstention.triple` says by budget, clean images at 0; empty without records.

    Args:
        panel: see :func:`outcome_curves`.
        source: the run's records, or None.
    """
    if source is None or (isinstance(source, Mapping) and "failed" in source):
        return {}
    cells = read_records(source).cells
    found = {key.eps if key.attack != CLEAN else 0.0: part for key, part in cells.items() if _shown(key, panel)}
    return {eps: triple(part) for eps, part in sorted(found.items())}


def _shown(key: CellKey, panel: Mapping[str, Any]) -> bool:
    if key.system != panel["system"] or key.check:
        return False
    attacked = key.attack == panel["attack"] and key.surface == panel["surface"]
    return key.attack == CLEAN or (attacked and key.norm == panel.get("norm", "linf"))


def _panel(axes: Axes, label: str, points: Mapping[float, Mapping[str, Any]], norm: str) -> None:
    budgets = list(points)
    for place, (share, words) in enumerate(SHARES.items()):
        values = [points[eps][share] for eps in budgets]
        low, high = np.array([value["interval"] for value in values]).T
        axes.plot(
            budgets,
            [value["percent"] for value in values],
            label=words,
            color=color(place),
            linestyle=LINES[place],
            marker=MARKERS[place],
        )
        axes.fill_between(budgets, low, high, color=color(place), alpha=0.15, linewidth=0)
    axes.set(ylim=(-2, 102), title=label, xlabel=f"budget ({NORMS.get(norm, norm)}, pixels in [0, 1])")


def acceptance_curve(panels: Sequence[Mapping[str, Any]], sources: Mapping[str, Any], path: str | Path) -> Path | None:
    """Share of attacked images that are wrong and below a threshold, against the clean images that it rejects.

    Args:
        panels: each with ``label``, ``run``, ``system``, ``attack`` and ``surface``, ``norm`` and ``eps``.
        sources: see :func:`outcome_curves`.
        path: of the PNG.

    Returns:
        The file, or None where nothing was recorded.

    Notes:
        The images were made against one threshold, the system's own. Left of it the curve is what a stricter threshold
        would keep out of these images, not of images made against it.
    """
    lines = []
    for panel in panels:
        source = sources.get(panel["run"])
        if source is None or (isinstance(source, Mapping) and "failed" in source):
            continue
        parts = {key: part for key, part in read_records(source).cells.items() if _shown(key, panel)}
        clean = next((part for key, part in parts.items() if key.attack == CLEAN), None)
        attacked = [p for key, p in parts.items() if key.attack != CLEAN and abs(key.eps - panel["eps"]) < 1e-6]
        if clean is not None and attacked:
            lines.append((str(panel["label"]), *accepted_share(clean, attacked[0])))
    if not lines:
        return None
    with drawing(5.6, 3.6) as figure:
        axes = figure.subplots()
        for place, (label, rejected, accepted) in enumerate(lines):
            axes.plot(100 * rejected, 100 * accepted, label=label, color=color(place), linestyle=LINES[place // 7 % 4])
        axes.set(xlabel="clean images rejected (%)", ylabel="attacked images accepted and wrong (%)", ylim=(-2, 102))
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        return save(figure, path)


def accepted_share(clean: Records, attacked: Records) -> tuple[Any, Any]:
    """(share of clean images rejected, share of attacked images accepted and wrong), one point a distinct risk."""
    wrong = attacked["prediction"] != attacked["label"]
    thresholds = np.unique(np.concatenate([clean["risk"], attacked["risk"]]))[::-1]
    rejected = np.array([(clean["risk"] > t).mean() for t in thresholds])
    accepted = np.array([(wrong & (attacked["risk"] <= t)).mean() for t in thresholds])
    return rejected, accepted
