"""What the attack did and what the defense made of it, as pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from robustforge.reporting.figures.style import PALETTE, Arrays, drawing, save

MOST_ROWS = 8
_FACTORS = (1, 2, 5, 10, 20, 50, 100)


def gallery(data: Arrays, path: Path) -> Path:
    """Draws images, what an attack made of them and what the defense made of that.

    Args:
        data: ``clean``, ``attacked`` and, for defenses that rebuild their input, ``rebuilt``: (n, C, H, W) in [0, 1];
            ``label`` and ``prediction`` (n,); ``title``.
        path: of the PNG.
    """
    columns = _columns(data)
    rows = min(MOST_ROWS, len(data["label"]))
    with drawing(1.2 * len(columns) + 1.0, 1.2 * rows + 0.6) as figure:
        figure.suptitle(f"{data.get('title', 'gallery')}{channels_note(data['clean'])}", fontsize=10)
        grid = figure.subplots(rows, len(columns), squeeze=False)
        for i in range(rows):
            for j, (heading, images) in enumerate(columns.items()):
                show(grid[i][j], images[i])
                if i == 0:
                    grid[i][j].set_title(heading, fontsize=8.5, loc="center")
            _label(grid[i][0], int(data["label"][i]), int(data["prediction"][i]))
        return save(figure, path)


def _columns(data: Arrays) -> dict[str, NDArray[Any]]:
    """Images by heading; the difference is amplified as far as it fits, around mid gray."""
    difference = data["attacked"].astype(float) - data["clean"].astype(float)
    largest = float(np.abs(difference).max()) or 1.0
    factor = max([f for f in _FACTORS if f * largest <= 0.5], default=1)
    columns: dict[str, NDArray[Any]] = {name: data[name] for name in ("clean", "attacked", "rebuilt") if name in data}
    columns[f"difference ×{factor}"] = 0.5 + factor * difference  # noqa: RUF001
    return columns


def visible(images: NDArray[Any]) -> NDArray[Any]:
    """What a picture shows of images (..., C, H, W).

    Returns:
        (..., H, W) in [0, 1], the only or first of one or two channels, or (..., H, W, 3), the first three.
    """
    shown = np.clip(images, 0, 1)
    return shown[..., 0, :, :] if images.shape[-3] < 3 else np.moveaxis(shown[..., :3, :, :], -3, -1)


def channels_note(images: NDArray[Any]) -> str:
    """Says which channels of images (..., C, H, W) a picture shows, for its title; empty where it shows all."""
    count = images.shape[-3]
    if count in (1, 3):
        return ""
    return f" (channel 1 of {count})" if count == 2 else f" (channels 1 to 3 of {count})"


def show(axes: Axes, image: NDArray[Any]) -> None:
    """Draws one image (C, H, W) in [0, 1] without axes."""
    draw_pixels(axes, visible(image))


def draw_pixels(axes: Axes, pixels: NDArray[Any]) -> None:
    """Draws (H, W) or (H, W, 3) in [0, 1] without axes."""
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=1)
    axes.set(xticks=[], yticks=[])
    axes.grid(False)
    axes.spines[:].set_visible(False)


def _label(axes: Axes, label: int, prediction: int) -> None:
    fooled = label != prediction
    text = f"label {label}\nsays {prediction}"
    axes.set_ylabel(
        text, rotation=0, ha="right", va="center", labelpad=6, fontsize=8, color=PALETTE[1] if fooled else "#333333"
    )
