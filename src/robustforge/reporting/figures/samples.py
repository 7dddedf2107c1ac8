"""What a generative defense draws, as a picture: samples class by class, and reconstructions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

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
    with drawing(5.0, 0.5 * len(rows) + 0.4) as figure:
        grid = figure.subplots(len(rows), 1, squeeze=False)[:, 0]
        for axes, (label, images) in zip(grid, rows, strict=True):
            _strip(axes, label, images)
        return save(figure, path)


def _strip(axes: Axes, label: str, images: NDArray[Any]) -> None:
    """Images (n, C, H, W) side by side, as one picture: hundreds of axes are slow to lay out."""
    picture = np.concatenate(list(images.transpose(0, 2, 3, 1)), axis=1)
    axes.imshow(picture[..., 0] if picture.shape[2] == 1 else picture, cmap="gray", vmin=0, vmax=1)
    axes.set(xticks=[], yticks=[])
    axes.set_ylabel(label, rotation=0, ha="right", va="center", fontsize=8)
    axes.grid(False)
    axes.spines[:].set_visible(False)
