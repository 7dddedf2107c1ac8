"""A picture of how alike detectors' scores are."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from robustforge.reporting.figures.style import Arrays, drawing, save


def correlation(data: Arrays, path: Path) -> Path:
    """Draws two matrices side by side.

    Args:
        data: ``clean`` and ``attacked`` (J, J), J > 1, and ``title``.
        path: of the PNG.
    """
    matrices, title = {name: data[name] for name in ("clean", "attacked")}, str(data["title"])
    side = len(matrices["clean"])
    with drawing(7.2, 3.6) as figure:
        figure.suptitle(f"correlation of detectors' scores ({title})", fontsize=9)
        for axes, (name, matrix) in zip(figure.subplots(1, 2), matrices.items(), strict=True):
            shown = axes.imshow(matrix, vmin=-1, vmax=1, cmap="RdBu_r")
            mean = (matrix.sum() - np.trace(matrix)) / (side * (side - 1))
            axes.set(title=f"{name}: mean {mean:+.2f}", xticks=range(side), yticks=range(side))
            axes.grid(False)
            if side <= 8:
                for (row, column), value in np.ndenumerate(matrix):
                    ink = "white" if abs(value) > 0.6 else "black"
                    axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=7, color=ink)
        figure.colorbar(shown, ax=figure.axes)
        return save(figure, path)
