"""What stands beside a reproduced table: figures over its runs, and what the runs measured besides accuracies."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from robustforge.reporting.figures import run_curves
from robustforge.reporting.figures.outcome_curves import acceptance_curve, outcome_curves
from robustforge.reporting.figures.roc_figure import roc_figure

KINDS: Mapping[str, Callable[..., Path | None]] = {"outcomes": outcome_curves, "acceptance": acceptance_curve}


def draw(spec: Mapping[str, Any], results: Mapping[str, Any], folder: Path) -> list[Path]:
    """Draws what a specification asks for beside its table.

    ``figures``, each with ``file``, ``kind`` and ``panels``; ``curves``, the training curves of several runs (see
    :func:`run_curves.draw`); ``roc: true``, the ROC curves behind its AUROC cells.

    Args:
        spec: of the table.
        results: by run: its records, None, or ``{"failed": reason}``.
        folder: of the table.

    Returns:
        The files that there was something to draw in.

    Raises:
        ValueError: an unknown kind.
    """
    made: list[Path | None] = []
    for figure in spec.get("figures", []):
        if figure["kind"] not in KINDS:
            raise ValueError(f"There is no figure '{figure['kind']}': choose one of {', '.join(KINDS)}.")
        made.append(KINDS[figure["kind"]](figure["panels"], results, folder / figure["file"]))
    made += run_curves.draw(spec.get("curves", []), folder)
    if spec.get("roc"):
        made.append(roc_figure(spec, results, folder / "roc.png"))
    return [path for path in made if path is not None]


def told(spec: Mapping[str, Any], results: Mapping[str, Any]) -> list[str]:
    """One line a run with the ``diagnostics`` of its ``result.json`` that the specification asks for."""
    lines = []
    for run, source in results.items():
        if not isinstance(source, Path):
            continue
        found = json.loads((source.parent / "result.json").read_text(encoding="utf-8"))["diagnostics"]
        words = [f"{name.replace('_', ' ')} {found[name]:.3f}" for name in spec.get("diagnostics", []) if name in found]
        if words:
            lines.append(f"{run}: {', '.join(words)}.")
    return lines
