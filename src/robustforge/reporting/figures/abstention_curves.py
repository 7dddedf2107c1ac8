"""Two pictures of a system that may reject: error against accepted share, and detection against false alarms."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from robustforge.records.abstention import aurc, auroc, changed_risks, risk_coverage, roc
from robustforge.records.table import CLEAN, CellKey, Records, read_records, same_eps
from robustforge.reporting.figures.style import (
    CLEAN_COLOR,
    LINES,
    MAIN_COLOR,
    RULE,
    STRONGEST_COLOR,
    WORST_COLOR,
    drawing,
    save,
    side_labels,
    tip,
)
from robustforge.reporting.headline import attacks_at, main_attack, title, worst_cell

Lines = list[tuple[str, str, Records]]  # (words, color, records)


def abstention_curves(source: Any, result: Mapping[str, Any], path: str | Path) -> Path | None:
    """Risk-coverage curves of the defense, and its ROC curves of attacked against clean images.

    At most four lines a panel: clean, the main attack, the strongest, and the one that is detected least.

    Args:
        source: the records; anything that ``read_records`` takes.
        result: computed from them; says which system is the defense and which rate the headline number has.
        path: of the PNG.

    Returns:
        The file, or None where the defense has no risk.
    """
    lines = shown_cells(read_records(source), result)
    if not lines:
        return None
    with drawing(10.4, 3.9) as figure:
        figure.suptitle(title(result), x=0.01, ha="left", fontsize=11, weight="bold")
        coverage, detection = figure.subplots(1, 2)
        coverage_panel(coverage, lines, 2.6)
        roc_panel(detection, lines, 2.6)
        coverage.set_title("risk and coverage")
        detection.set_title("detection")
        return save(figure, path)


def shown_cells(records: Records, result: Mapping[str, Any]) -> Lines:
    """The cells of the defense that are drawn, by what they are; empty where it has no risk."""
    worst = worst_cell(result)
    rate = None if worst is None else worst["rate"]
    with_risk = {
        key: part
        for key, part in records.cells.items()
        if (key.system, key.rate, key.check) == (result["defense"], rate, "") and np.isfinite(part["risk"]).all()
    }
    clean = next((part for key, part in with_risk.items() if key.attack == CLEAN), None)
    lines: Lines = [] if clean is None else [("clean", CLEAN_COLOR, clean)]
    if worst is None:
        return lines
    attacked = {k: part for k, part in with_risk.items() if k.attack != CLEAN and _at(k, worst)}
    if not attacked:
        return lines
    by_name = {(key.attack, key.surface): key for key in attacked}
    main, strongest = main_attack(result, worst), next(iter(attacks_at(result, worst)), None)
    wanted = [("strongest", WORST_COLOR, strongest), ("main", MAIN_COLOR, main)]
    chosen = [(words, shade, by_name.get((c["attack"], c["surface"]))) for words, shade, c in wanted if c is not None]
    if clean is not None:
        changed = {key: changed_risks(part) for key, part in attacked.items()}
        found = [key for key in attacked if len(changed[key])]
        hidden = min(found, key=lambda key: auroc(clean["risk"], changed[key]), default=None)
        chosen.append(("least detected", STRONGEST_COLOR, hidden))
    seen: set[CellKey] = set()
    for words, shade, key in chosen:
        if key is not None and key not in seen:
            seen.add(key)
            lines.append((f"{words}: {key.attack}\non {key.surface}".replace("_", " "), shade, attacked[key]))
    return lines


def _at(key: CellKey, worst: Mapping[str, Any]) -> bool:
    eps = float("inf") if worst["eps"] is None else worst["eps"]
    return key.norm == worst["norm"] and (key.eps == eps or same_eps(key.eps, eps))


def coverage_panel(axes: Axes, lines: Lines, height: float) -> None:
    """Share of wrong answers among the accepted, against the share that is accepted."""
    labels = []
    for k, (words, shade, part) in enumerate(lines):
        wrong = part["prediction"] != part["label"]
        x, y = risk_coverage(part["risk"], wrong)
        area = 100 * aurc(part["risk"], wrong)
        keep = np.unique(np.linspace(0, len(x) - 1, 200).astype(int))
        (line,) = axes.plot(100 * x[keep], 100 * y[keep], color=shade, linestyle=LINES[max(0, k - 1) % 4])
        tip(line, f"{words}: AURC {area:.1f}, {100 * y[-1]:.1f} % wrong where all are accepted".replace("\n", " "))
        labels.append((100 * float(y[-1]), f"{words}, AURC {area:.1f}", shade))
    axes.set(xlim=(0, 100), xlabel="accepted (%)", ylabel="wrong among the accepted (%)")
    axes.set_ylim(bottom=0)
    side_labels(axes, labels, height)


def roc_panel(axes: Axes, lines: Lines, height: float) -> None:
    """Attacked images rejected, against clean images rejected."""
    clean = next((part for words, _, part in lines if words == "clean"), None)
    axes.plot([0, 100], [0, 100], color=RULE, linewidth=1)
    labels = []
    for k, (words, shade, part) in enumerate(lines):
        positive = changed_risks(part)
        if clean is None or part is clean or not len(positive):
            continue
        x, y = (100 * rates for rates in roc(clean["risk"], positive))
        area = auroc(clean["risk"], positive)
        (line,) = axes.plot(x, y, color=shade, linestyle=LINES[max(0, k - 1) % 4], drawstyle="steps-post")
        tip(line, f"{words}: AUROC {area:.2f}".replace("\n", " "))
        labels.append((100 * area, f"{words}, AUROC {area:.2f}", shade))
    axes.set(xlim=(0, 100), ylim=(0, 101))
    axes.set(xlabel="clean images rejected (%)", ylabel="attacked images rejected (%)")
    if labels:
        side_labels(axes, labels, height)
