"""What the attack did and what the defense made of it, as pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from robustforge.reporting.figures.style import INK, PALETTE, Arrays, drawing, save
from robustforge.reporting.text import budget

MOST_ROWS = 8
CHANGES = "RdBu_r"  # red where the attack made the image lighter, blue where darker, white where it did nothing


def gallery(data: Arrays, path: Path) -> Path:
    """Draws images, what an attack made of them and what the defense made of that.

    Args:
        data: ``clean``, ``attacked`` and, for defenses that rebuild their input, ``rebuilt``: (n, C, H, W) in [0, 1];
            ``label`` and ``prediction`` (n,); ``title``. ``eps`` and ``norm``, where given, are the budget.
        path: of the PNG.
    """
    names = [name for name in ("clean", "attacked", "change", "rebuilt") if name == "change" or name in data]
    rows = min(MOST_ROWS, len(data["label"]))
    change, span = changes(data["attacked"] - data["clean"]), change_range(data)
    with drawing(1.2 * len(names) + 1.0, 1.2 * rows + 0.8) as figure:
        figure.suptitle(f"{data.get('title', 'gallery')}{channels_note(data['clean'])}", fontsize=10)
        grid = figure.subplots(rows, len(names), squeeze=False)
        for i in range(rows):
            for j, name in enumerate(names):
                if name == "change":
                    draw_change(grid[i][j], change[i], span)
                else:
                    show(grid[i][j], data[name][i])
                if i == 0:
                    heading = f"change, ±{budget(span)}" if name == "change" else name
                    grid[i][j].set_title(heading, fontsize=8.5, loc="center")
            _label(grid[i][0], int(data["label"][i]), int(data["prediction"][i]))
        return save(figure, path)


def changes(difference: NDArray[Any]) -> NDArray[Any]:
    """(..., C, H, W) signed changes -> (..., H, W): at each pixel that of the channel which changes most."""
    strongest = np.abs(difference).argmax(-3)[..., None, :, :]
    return np.take_along_axis(difference, strongest, -3)[..., 0, :, :]


def change_range(data: Arrays) -> float:
    """Where the colors of a change end: at the budget of L-infinity, else at the largest change."""
    largest = float(np.abs(data["attacked"].astype(float) - data["clean"]).max()) or 1.0
    bounded = "eps" in data and str(data.get("norm", "")) == "linf" and np.isfinite(data["eps"])
    return float(data["eps"]) if bounded and float(data["eps"]) > 0 else largest


def draw_change(axes: Axes, change: NDArray[Any], span: float) -> None:
    """Draws one change (H, W) on a scale from -``span`` to ``span``, white at 0."""
    axes.imshow(change, cmap=CHANGES, vmin=-span, vmax=span)
    _bare(axes)


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
    _bare(axes)


def _bare(axes: Axes) -> None:
    axes.set(xticks=[], yticks=[])
    axes.grid(False)
    axes.spines[:].set_visible(False)


def _label(axes: Axes, label: int, prediction: int) -> None:
    fooled = label != prediction
    text = f"label {label}\nsays {prediction}"
    axes.set_ylabel(
        text, rotation=0, ha="right", va="center", labelpad=6, fontsize=8, color=PALETTE[1] if fooled else INK
    )
