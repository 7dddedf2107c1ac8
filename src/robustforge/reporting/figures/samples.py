"""What a generative defense draws, as a picture: samples class by class, and reconstructions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from robustforge.reporting.figures.gallery import channels_note, draw_pixels, visible
from robustforge.reporting.figures.style import Arrays, drawing, save


def samples(data: Arrays, path: Path) -> Path:
    """Draws a row a class, then test images and what is made of them.

    Args:
        data: ``samples`` (K, n, C, H, W), ``clean`` and ``rebuilt`` (m, C, H, W), all in [0, 1].
        path: of the PNG.
    """
    drawn, clean, rebuilt = (data[name] for name in ("samples", "clean", "rebuilt"))
    rows = [(f"class {number}", images) for number, images in enumerate(drawn)]
    rows += [("test images", clean[: drawn.shape[1]]), ("rebuilt", rebuilt[: drawn.shape[1]])]
    shape = drawn.shape
    with drawing(0.95 + 0.45 * shape[1] * shape[-1] / shape[-2], 0.5 * len(rows) + 0.4) as figure:
        if note := channels_note(clean):
            figure.suptitle(f"samples{note}", fontsize=9)
        grid = figure.subplots(len(rows), 1, squeeze=False)[:, 0]
        for axes, (label, images) in zip(grid, rows, strict=True):
            _strip(axes, label, images)
        return save(figure, path)


def _strip(axes: Axes, label: str, images: NDArray[Any]) -> None:
    """Images (n, C, H, W) side by side, as one picture: hundreds of axes are slow to lay out."""
    draw_pixels(axes, np.concatenate(list(visible(images)), axis=1))
    axes.set_ylabel(label, rotation=0, ha="right", va="center", fontsize=8)
