"""Two pictures of a system that may reject: error against accepted share, and detection against false alarms."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from robustforge.records.abstention import aurc, auroc, changed_risks, risk_coverage, roc
from robustforge.records.table import CLEAN, CellKey, read_records
from robustforge.reporting.figures.style import LINES, color, drawing, save
from robustforge.reporting.text import NORMS, budget


def abstention_curves(source: Any, result: Mapping[str, Any], path: str | Path) -> Path | None:
    """Risk-coverage curves of the defense, and its ROC curves of attacked against clean images.

    Args:
        source: the records; anything that ``read_records`` takes.
        result: computed from them; says which system is the defense and which rate the headline number has.
        path: of the PNG.

    Returns:
        The file, or None where the defense has no risk.
    """
    records = read_records(source)
    rate = (result.get("objective_of") or {}).get("rate")
    cells = {
        key: part
        for key, part in records.cells.items()
        if key.system == result["defense"] and key.rate == rate and not key.check and np.isfinite(part["risk"]).all()
    }
    if not cells:
        return None
    clean = next((part for key, part in cells.items() if key.attack == CLEAN), None)
    with drawing(9.6, 3.6) as figure:
        coverage, detection = figure.subplots(1, 2)
        for place, (key, part) in enumerate(cells.items()):
            look: Any = {"color": color(place), "linestyle": LINES[place // 7 % len(LINES)]}
            wrong = part["prediction"] != part["label"]
            x, y = risk_coverage(part["risk"], wrong)
            label = f"{_words(key)} (AURC {100 * aurc(part['risk'], wrong):.1f})"
            coverage.plot(100 * x, 100 * y, label=label, **look)
            positive = changed_risks(part)
            if clean is not None and key.attack != CLEAN and len(positive):
                label = f"{_words(key)} (AUROC {auroc(clean['risk'], positive):.2f})"
                detection.plot(*(100 * axis for axis in roc(clean["risk"], positive)), label=label, **look)
        detection.plot([0, 100], [0, 100], color="#bbbbbb", linewidth=0.8)
        coverage.set(title="risk and coverage", xlabel="accepted (%)", ylabel="wrong among the accepted (%)")
        detection.set(title="detection", xlabel="clean images rejected (%)", ylabel="attacked images rejected (%)")
        for axes in (coverage, detection):
            if axes.get_legend_handles_labels()[0]:
                axes.legend(fontsize=6.5, loc="best")
        return save(figure, path)


def _words(key: CellKey) -> str:
    if key.attack == CLEAN:
        return "clean"
    return f"{key.attack} {key.surface} {NORMS.get(key.norm, key.norm)} {budget(key.eps, key.norm)}"
