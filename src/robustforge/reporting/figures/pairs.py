"""Images above what a defense makes of them, several rows of such pairs."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from robustforge.reporting.figures.gallery import channels_note, draw_pixels, visible
from robustforge.reporting.figures.style import Arrays, drawing, save


def pairs(data: Arrays, path: Path) -> Path:
    """Draws two rows a group: images, and below them their rebuilt versions.

    Args:
        data: ``upper`` and ``lower`` (G, n, C, H, W) in [0, 1], ``label`` (G,) texts, and ``title``.
        path: of the PNG.
    """
    upper, lower, labels = data["upper"], data["lower"], data["label"]
    with drawing(0.55 * upper.shape[1] + 1.6, 1.15 * len(upper) + 0.6) as figure:
        figure.suptitle(f"{data['title']}{channels_note(upper[0])}", fontsize=9)
        grid = figure.subplots(len(upper), 1, squeeze=False)[:, 0]
        for axes, above, below, label in zip(grid, upper, lower, labels, strict=True):
            rows = [np.concatenate(list(visible(images)), axis=1) for images in (above, below)]
            draw_pixels(axes, np.concatenate(rows, axis=0))
            axes.set_ylabel(str(label), rotation=0, ha="right", va="center", fontsize=8)
        return save(figure, path)
