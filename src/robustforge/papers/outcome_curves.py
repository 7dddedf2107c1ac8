"""What a system that may reject does with attacked images: correct, wrong and rejected shares against the budget."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from robustforge.papers.specification import OutcomeFigure, Panel
from robustforge.records.abstention import Floats, triple
from robustforge.records.table import Records
from robustforge.reporting.figures.style import LINES, MARKERS, color, drawing, save
from robustforge.reporting.text import NORMS

SHARES = {
    "accepted_correct": "accepted, correct",
    "accepted_wrong": "accepted, wrong",
    "rejected": "rejected",
}


def outcome_curves(figure: OutcomeFigure, records: Mapping[str, Records], path: Path) -> Path | None:
    """One panel a system, attack and norm: the three shares against the budget, with Wilson's 95 % intervals.

    Args:
        figure: what it shows.
        records: by run; a run without records is left out.
        path: of the PNG.

    Returns:
        The file, or None where no panel has an attacked budget.
    """
    lines = [(panel, shares(panel, records.get(panel.run))) for panel in figure.panels]
    lines = [(panel, points) for panel, points in lines if any(eps > 0 for eps in points)]
    if not lines:
        return None
    with drawing(3.6 * len(lines), 3.2) as canvas:
        row = canvas.subplots(1, len(lines), sharey=True, squeeze=False)[0]
        for axes, (panel, points) in zip(row, lines, strict=True):
            _panel(axes, panel, points)
        row[0].set_ylabel("share of the test images (%)")
        handles, names = row[0].get_legend_handles_labels()
        canvas.legend(handles, names, loc="outside lower center", ncols=len(SHARES))
        return save(canvas, path)


def shares(panel: Panel, records: Records | None) -> dict[float, dict[str, dict[str, Any]]]:
    """:func:`robustforge.records.abstention.triple` by budget, clean images at 0; empty without records."""
    if records is None:
        return {}
    clean = panel.selection.clean(records)
    parts = {} if clean is None else {0.0: clean}
    parts |= {key.eps: part for key, part in panel.selection.attacked(records).items()}
    return {eps: triple(part) for eps, part in sorted(parts.items())}


def _panel(axes: Axes, panel: Panel, points: Mapping[float, Mapping[str, Any]]) -> None:
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
    norm = NORMS.get(panel.norm, panel.norm)
    axes.set(ylim=(-2, 102), title=panel.label, xlabel=f"budget ({norm}, pixels in [0, 1])")


def acceptance_curve(figure: OutcomeFigure, records: Mapping[str, Records], path: Path) -> Path | None:
    """Share of attacked images that are wrong and below a threshold, against the clean images that it rejects.

    Args:
        figure: what it shows; its panels have an ``eps``.
        records: by run; a run without records is left out.
        path: of the PNG.

    Returns:
        The file, or None where nothing was recorded.

    Notes:
        The images were made against one threshold, the system's own. Where fewer clean images are rejected than at
        that one, the curve says how a more lenient threshold treats these images; an attack on it would make others.
    """
    lines = []
    for panel in figure.panels:
        if panel.run in records:
            clean = panel.selection.clean(records[panel.run])
            attacked = list(panel.selection.attacked(records[panel.run]).values())
            if clean is not None and attacked:
                lines.append((panel.label, *accepted_share(clean, attacked[0])))
    if not lines:
        return None
    with drawing(5.6, 3.6) as canvas:
        axes = canvas.subplots()
        for place, (label, rejected, accepted) in enumerate(lines):
            axes.plot(100 * rejected, 100 * accepted, label=label, color=color(place), linestyle=LINES[place // 7 % 4])
        axes.set(xlabel="clean images rejected (%)", ylabel="attacked images accepted and wrong (%)", ylim=(-2, 102))
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        return save(canvas, path)


def accepted_share(clean: Records, attacked: Records) -> tuple[Floats, Floats]:
    """(share of clean images rejected, share of attacked images accepted and wrong), one point a distinct risk."""
    wrong = attacked["prediction"] != attacked["label"]
    thresholds = np.unique(np.concatenate([clean["risk"], attacked["risk"]]))[::-1]
    rejected = np.array([(clean["risk"] > t).mean() for t in thresholds])
    accepted = np.array([(wrong & (attacked["risk"] <= t)).mean() for t in thresholds])
    return rejected, accepted
