"""Draws the arrays that a run has kept: one drawing for each kind of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from robustforge.files import read_arrays
from robustforge.optional import optional
from robustforge.reporting.figures.budgets import budgets
from robustforge.reporting.figures.correlation import correlation
from robustforge.reporting.figures.density import density
from robustforge.reporting.figures.gallery import gallery
from robustforge.reporting.figures.pairs import pairs
from robustforge.reporting.figures.samples import samples
from robustforge.reporting.figures.scatter import scatter
from robustforge.reporting.figures.style import Arrays

Drawing = Callable[[Arrays, Path], Path]
DRAWINGS: dict[str, Drawing] = {
    "gallery": gallery,
    "samples": samples,
    "pairs": pairs,
    "scatter": scatter,
    "density": density,
    "correlation": correlation,
    "budgets": budgets,
}


def draw_arrays(run_dir: Path) -> list[Path]:
    """Draws each ``<name>.npz`` of a run folder that says its kind as ``figures/<name>.png``.

    One that fails is a warning.
    """
    made = []
    for path in sorted(run_dir.glob("*.npz")):
        with optional(f"figure {path.stem}"):
            arrays = read_arrays(path)
            if arrays and "kind" in arrays:
                made.append(DRAWINGS[str(arrays["kind"])](arrays, run_dir / "figures" / f"{path.stem}.png"))
    return made
