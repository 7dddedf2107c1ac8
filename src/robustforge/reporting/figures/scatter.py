"""The class geometry of a defense's features, clean and under attack, in two dimensions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from numpy.typing import NDArray

from robustforge.reporting.figures.style import Arrays, drawing, save


def scatter(data: Arrays, path: Path) -> Path:
    """Draws t-SNE of clean and attacked features and of class centroids.

    All are embedded together, so that the two panels share their coordinates; those of ``spaces`` each by themselves.

    Args:
        data: ``clean`` and ``attacked`` (n, d), ``label`` (n,), ``title`` and, where the defense has them, ``anchors``
            (K, d). Or, in place of the first two, ``spaces``, names (S,), with an array (n, d) of each name ``space0``,
            ``space1`` ...
        path: of the PNG.
    """
    if "spaces" in data:
        return _spaces(data, path)
    anchors = data.get("anchors", np.zeros((0, data["clean"].shape[1]), np.float32))
    points = project(np.concatenate([data["clean"], data["attacked"], anchors]))
    count = len(data["label"])
    with drawing(9.0, 4.6) as figure:
        figure.suptitle(f"Features by class, t-SNE ({data['title']})", x=0.01, ha="left", fontsize=10)
        for axes, name, start in zip(figure.subplots(1, 2), ("clean", "attacked"), (0, count), strict=True):
            _panel(axes, name, points[start : start + count], data["label"], points[2 * count :])
        return save(figure, path)


def _spaces(data: Arrays, path: Path) -> Path:
    """A panel a space."""
    names = [str(name) for name in data["spaces"]]
    with drawing(4.5 * len(names), 4.6) as figure:
        figure.suptitle(f"Features by class, t-SNE ({data['title']})", x=0.01, ha="left", fontsize=10)
        for number, axes in enumerate(figure.subplots(1, len(names), squeeze=False)[0]):
            _panel(axes, names[number], project(data[f"space{number}"]), data["label"], np.zeros((0, 2)))
        return save(figure, path)


def project(features: NDArray[Any]) -> NDArray[Any]:
    """(n, d) -> (n, 2) by t-SNE (van der Maaten & Hinton 2008), the same for the same input."""
    from sklearn.manifold import TSNE  # slow to import, and only needed here

    perplexity = min(30.0, (len(features) - 1) / 3)
    embedded: NDArray[Any] = TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(
        features.astype(np.float32)
    )
    return embedded


def _panel(axes: Axes, name: str, points: NDArray[Any], labels: NDArray[Any], anchors: NDArray[Any]) -> None:
    colors = colormaps["tab10" if labels.max() < 10 else "tab20"]
    axes.scatter(points[:, 0], points[:, 1], c=colors(labels % colors.N), s=9, linewidths=0)
    for k, (x, y) in enumerate(anchors):
        axes.plot(x, y, marker="*", markersize=13, color=colors(k % colors.N), markeredgecolor="black")
    for k in np.unique(labels):
        x, y = np.median(points[labels == k], axis=0)
        axes.text(x, y, str(k), fontsize=9, weight="bold", ha="center", va="center")
    axes.set(title=name if not len(anchors) else f"{name} (stars: centroids)", xticks=[], yticks=[])
