"""How far the classes lie apart in feature space: in numbers, and as a picture."""

from __future__ import annotations

import torch
from torch import Tensor

from robustforge.attacks.core.surface import Surface
from robustforge.defenses.dfl_pcl.centroids import FeatureSpace
from robustforge.defenses.dfl_pcl.losses import angles, distances
from robustforge.defenses.figures import Figure, Picture, Scene
from robustforge.types import Batch


def dfl_pcl_figures(space: FeatureSpace, surface: Surface) -> dict[str, Figure]:
    """The figures of one defense, by name."""
    return {"geometry": lambda scene: class_geometry(scene, space, surface)}


@torch.no_grad()
def class_geometry(scene: Scene, space: FeatureSpace, surface: Surface, count: int = 300) -> Picture:
    """Features of the first ``count`` test images, clean and attacked, with the centroids where there are any."""
    x, y = scene.images(count)
    features = {"clean": space.embed(x), "attacked": space.embed(scene.attacked(surface, x, y))}
    centroids = {} if space.anchors is None else {"anchors": space.anchors}
    return Picture("scatter", {**features, **centroids, "label": y, "title": scene.title(surface)})


def geometry_numbers(space: FeatureSpace, batch: Batch) -> dict[str, Tensor]:
    """Lengths of features, their distances to centroids, and angles between centroids.

    Returns:
        (B,) each: ``feature_norm``, and with centroids ``own_distance``, ``nearest_other_distance``;
        ``least_centroid_angle`` and ``mean_centroid_angle`` in degrees, the same for all images.
    """
    found = {"feature_norm": space.network.respond(batch.x).features.float().norm(dim=1)}
    if space.anchors is None:
        return found
    y, points = batch.y, space.anchors
    apart, between = distances(space.embed(batch.x), points), angles(points).rad2deg()
    others = between[~torch.eye(len(points), dtype=torch.bool, device=points.device)]
    return {
        **found,
        "own_distance": apart.gather(1, y[:, None]).squeeze(1),
        "nearest_other_distance": apart.scatter(1, y[:, None], float("inf")).amin(1),
        "least_centroid_angle": others.min().expand(len(y)),
        "mean_centroid_angle": others.mean().expand(len(y)),
    }
