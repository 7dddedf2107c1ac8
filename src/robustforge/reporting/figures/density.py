"""Where features lie around their class centers, and how far from them, in two networks side by side."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib import colormaps

from robustforge.reporting.figures.style import Arrays, drawing, save


def density(data: Arrays, path: Path) -> Path:
    """Draws a row a network: features in three dimensions, and histograms of the distances to the centers.

    Args:
        data: ``names`` (R,) texts; of each network r ``points_r`` (n, 3) and ``attacked_r`` (m, 3) features,
            ``distance_r`` (n,) and ``attacked_distance_r`` (m,); ``label`` (n,) classes of the clean ones; ``title``.
        path: of the PNG.
    """
    names, labels = data["names"], data["label"]
    colors = colormaps["tab10" if labels.max() < 10 else "tab20"]
    with drawing(8.4, 3.4 * len(names) + 0.4) as figure:
        figure.suptitle(str(data["title"]), x=0.01, ha="left", fontsize=10)
        for row, name in enumerate(names):
            axes = figure.add_subplot(len(names), 2, 2 * row + 1, projection="3d")
            axes.scatter(*data[f"points_{row}"].T, c=colors(labels % colors.N), s=5)
            axes.scatter(*data[f"attacked_{row}"].T, c="red", s=5, marker="x")
            axes.set_title(f"{name}: features (red: attacked)", fontsize=9)
            axes = figure.add_subplot(len(names), 2, 2 * row + 2)
            both = [data[f"distance_{row}"], data[f"attacked_distance_{row}"]]
            edges = np.histogram_bin_edges(np.concatenate(both), 40).tolist()
            for values, color, label in zip(both, ("tab:blue", "tab:red"), ("clean", "attacked"), strict=True):
                axes.hist(values, edges, density=True, alpha=0.6, color=color, label=label)
            axes.set(title=f"{name}: distance to the class center", xlabel="distance", ylabel="density")
            axes.legend()
        return save(figure, path)
