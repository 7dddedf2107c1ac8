"""What an attacker of DFL + PCL may differentiate.

==================== ============================================= =====================================================
surface              gradient of                                   why
==================== ============================================= =====================================================
``end_to_end``       the logits                                    the paper's protocol
``logit_normalized`` the logits over their length                  large logits starve cross-entropy of its gradient
``centroids``        minus the distances to the learned centroids  the geometry that the loss trains
``feature_matching`` minus the distances of f to the class means   steer the features to the nearest other class
``multi_layer``      normalized logits, and the distances of every the DFL passes shallow noise on to the head
                     stage's features to their class means
``transfer``         the undefended classifier                     the oblivious attacker
==================== ============================================= =====================================================

Under the margin loss, minus distances become max_j (|f - c_y| - |f - c_j|), the attack on margin and centroid losses
(Tramer et al. 2020, arXiv:2002.08347). All surfaces are judged by the deployed network's logits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from robustforge.attacks.core.surface import Surface, end_to_end, transfer
from robustforge.defenses.dfl_pcl.centroids import ClassMeans, FeatureSpace
from robustforge.defenses.dfl_pcl.losses import distances
from robustforge.defenses.dfl_pcl.networks import FeatureOutput

Views = Callable[[Tensor, Tensor], Sequence[Tensor]]


def closeness(features: Tensor, points: Tensor, normalized: bool = False) -> Tensor:
    """Minus the distances of features (B, d) to points (K, d), as logits (B, K), over the points' mean distance.

    Divided so that views of several depths weigh alike and cross-entropy finds them of the size of logits.
    """
    if normalized:
        features, points = F.normalize(features.float(), dim=1), F.normalize(points.float(), dim=1)
    between = distances(points, points)
    classes = len(points)
    scale = between.sum() / (classes * (classes - 1))
    return -distances(features, points) / scale.clamp_min(1e-6)


def unit_length(logits: Tensor) -> Tensor:
    """Logits (B, K) over their Euclidean length, so that their scale is 1."""
    return F.normalize(logits.float(), dim=1)


def dfl_pcl_surfaces(
    system: nn.Module, space: FeatureSpace, class_means: ClassMeans, undefended: nn.Module
) -> dict[str, Surface]:
    """The surfaces of one defense, by name.

    Notes:
        A view of distances comes after the logits, which keep the weight 0: the first view tells an attack which images
        to ask the system about. ``centroids`` exists where the feature loss has centroids.
    """
    network = space.network
    whole = end_to_end(system, system)

    def logit_normalized(x: Tensor, _: Tensor) -> Sequence[Tensor]:
        return (unit_length(network(x)),)

    def centroids(x: Tensor, _: Tensor) -> Sequence[Tensor]:
        output, points = network.respond(x), space.anchors
        assert points is not None
        return output.logits, closeness(output.features, points, space.normalized)

    def feature_matching(x: Tensor, _: Tensor) -> Sequence[Tensor]:
        output = network.respond(x)
        return output.logits, closeness(output.features, class_means.means[-1])

    def multi_layer(x: Tensor, _: Tensor) -> Sequence[Tensor]:
        output = network.respond(x)
        layers = zip(depths(output), class_means.means, strict=True)
        return unit_length(output.logits), *(closeness(features, points) for features, points in layers)

    views: dict[str, tuple[Views, tuple[float, ...]]] = {"logit_normalized": (logit_normalized, (1.0,))}
    if space.centroids is not None:
        views["centroids"] = centroids, (0.0, 1.0)
    views["feature_matching"] = feature_matching, (0.0, 1.0)
    views["multi_layer"] = multi_layer, (1.0, *[1.0 / class_means.depths] * class_means.depths)
    adapted = {name: Surface(name, view, whole.system, system, weights) for name, (view, weights) in views.items()}
    return {"end_to_end": whole, **adapted, "transfer": transfer(undefended, whole)}


def depths(output: FeatureOutput) -> list[Tensor]:
    """The features that class means are kept of: every stage's map averaged over its pixels, then f itself."""
    return [*output.pooled(), output.features]
