"""What belongs to a reproduced table besides its cells: figures over its runs, and diagnostics of the runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from robustforge.papers import run_curves
from robustforge.papers.outcome_curves import acceptance_curve, outcome_curves
from robustforge.papers.roc_figure import roc_figure
from robustforge.papers.specification import TableSpec
from robustforge.records.table import Records
from robustforge.reporting.result import read_result


def draw(spec: TableSpec, records: Mapping[str, Records], folder: Path) -> list[Path]:
    """Draws the figures that a specification asks for: ``figures``, ``curves`` and ``roc``.

    Args:
        spec: of the table.
        records: by run, of the runs that have any.
        folder: of the table; each run has a folder in it.

    Returns:
        The files that there was something to draw in.
    """
    kinds = {"outcomes": outcome_curves, "acceptance": acceptance_curve}
    made = [kinds[figure.kind](figure, records, folder / figure.file) for figure in spec.figures]
    made += run_curves.draw(spec.curves, folder)
    if spec.roc:
        made.append(roc_figure(spec, records, folder / "roc.png"))
    return [path for path in made if path is not None]


def diagnostic_lines(spec: TableSpec, runs: Iterable[str], folder: Path) -> list[str]:
    """One line a finished run with the diagnostics of its ``result.json`` that the specification asks for."""
    lines = []
    for run in runs:
        found = read_result(folder / run)["diagnostics"]
        words = [f"{name.replace('_', ' ')} {found[name]:.3f}" for name in spec.diagnostics if name in found]
        if words:
            lines.append(f"{run}: {', '.join(words)}.")
    return lines
