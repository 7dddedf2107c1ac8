"""The picture of the class geometry."""

import numpy as np
from matplotlib.image import imread

from robustforge.reporting.figures.scatter import project, scatter


def clusters(seed, classes=3, each=12, dim=8):
    data = np.random.default_rng(seed)
    centers = 20 * data.normal(size=(classes, dim))
    labels = np.repeat(np.arange(classes), each)
    return centers, centers[labels] + data.normal(size=(len(labels), dim)), labels


def test_clusters_stay_apart_and_the_projection_repeats():
    _, points, labels = clusters(0)
    flat = project(points)
    assert flat.shape == (36, 2)
    within = max(np.ptp(flat[labels == k], axis=0).max() for k in range(3))
    means = np.stack([flat[labels == k].mean(0) for k in range(3)])
    assert min(np.linalg.norm(means[a] - means[b]) for a in range(3) for b in range(a)) > within / 2
    assert np.array_equal(flat, project(points))


def test_a_picture_with_and_without_centroids(tmp_path):
    centers, points, labels = clusters(1)
    arrays = {"clean": points, "attacked": points + 0.1, "label": labels, "title": "pgd, linf 0.1"}
    for name, extra in (("with", {"anchors": centers}), ("without", {})):
        path = scatter({**arrays, **extra}, tmp_path / f"{name}.png")
        picture = imread(path)[..., :3]
        assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 20


def test_each_space_has_a_panel_of_its_own(tmp_path):
    _, points, labels = clusters(2)
    arrays = {"spaces": np.array(["one", "two", "three"]), "label": labels, "title": "clean test images"}
    arrays |= {f"space{k}": points + k for k in range(3)}
    picture = imread(scatter(arrays, tmp_path / "spaces.png"))[..., :3]
    assert picture.shape[1] > 2.5 * picture.shape[0]
    assert all(len(np.unique(part.reshape(-1, 3), axis=0)) > 20 for part in np.array_split(picture, 3, axis=1))
