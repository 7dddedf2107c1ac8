"""What modular robust redundancy draws: correlations of scores, features, attacked images that slip through."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from robustforge.attacks.core.surface import Surface
from robustforge.defenses.figures import Figure, Picture, Scene, gallery
from robustforge.defenses.mrr.system import Redundancy


def mrr_figures(system: Redundancy, surface: Surface, networks: Mapping[str, nn.Module]) -> dict[str, Figure]:
    """The figures of one defense, by name.

    Args:
        system: as deployed.
        surface: that is attacked for them.
        networks: victim and a defender by name, images (B, C, H, W) -> (logits, features, one a layer), for Fig. 4;
            without a defender there is none.
    """
    found: dict[str, Figure] = {}
    if system.count > 1:
        found["correlation"] = lambda scene: correlation(scene, system, surface)
    if len(networks) > 1:
        found["density"] = lambda scene: feature_density(scene, system, surface, networks)
    if system.count:
        found["hard"] = lambda scene: hard_to_detect(scene, system, surface)
    return found


@torch.no_grad()
def correlation(scene: Scene, system: Redundancy, surface: Surface, count: int = 300) -> Picture:
    """Correlation matrices (J, J) of the scores of the first ``count`` test images, clean and attacked.

    The picture has the mean correlation of two different detectors, ``score_correlation_clean`` and
    ``score_correlation_attacked``.
    """
    x, y = scene.images(count)
    images = {"clean": x, "attacked": scene.attacked(surface, x, y)}
    matrices = {name: pearson(system.judged(shown)[1]) for name, shown in images.items()}
    others = 1 - torch.eye(system.count, dtype=torch.float64, device=x.device)
    found = {f"score_correlation_{name}": float((m * others).sum() / others.sum()) for name, m in matrices.items()}
    return Picture("correlation", {**matrices, "title": scene.title(surface)}, found)


@torch.no_grad()
def feature_density(
    scene: Scene, system: Redundancy, surface: Surface, networks: Mapping[str, nn.Module], count: int = 300
) -> Picture:
    """The article's Fig. 4: features of victim and defender, and their distances to the center of the victim's class.

    Returns:
        With ``distance_auroc_<name>``: how well the distance alone tells attacked images that the victim labels wrong
        from clean ones that it labels right, in [0, 1]; left out where there is none of either.

    Notes:
        Centers are means over as many training images as test images are shown. Features have unit length, in the
        victim too (the article: Euclidean ones), and are shown along their first three principal components (the
        article: three dimensions that it does not name).
    """
    x, y = scene.images(count)
    x_adv = scene.attacked(surface, x, y)
    rows = slice(10 * count)
    train, labels = scene.data.train.pixels(rows, scene.device), scene.data.train.labels[rows].to(scene.device)
    label, wrong_label = system.victim(x).argmax(1), system.victim(x_adv).argmax(1)
    right = label == y
    turned = right & (wrong_label != y)
    arrays: dict[str, object] = {"names": list(networks), "label": y[right], "title": scene.title(surface)}
    found = {}
    for number, (name, network) in enumerate(networks.items()):
        known, clean, attacked = (_features(network, images) for images in (train, x, x_adv))
        member = torch.nn.functional.one_hot(labels, scene.data.num_classes).double()
        centers = member.T @ known / member.sum(0)[:, None].clamp(min=1)
        near = (clean - centers[label]).norm(dim=1)[right]
        far = (attacked - centers[wrong_label]).norm(dim=1)[turned]
        directions = torch.linalg.svd(clean - clean.mean(0), full_matrices=False).Vh[:3]
        points = {"points": clean[right], "attacked": attacked[turned]}
        arrays |= {f"{key}_{number}": (value - clean.mean(0)) @ directions.T for key, value in points.items()}
        arrays |= {f"distance_{number}": near, f"attacked_distance_{number}": far}
        if len(near) and len(far):
            truth = [0] * len(near) + [1] * len(far)
            found[f"distance_auroc_{name}"] = float(roc_auc_score(truth, torch.cat([near, far]).cpu().numpy()))
    return Picture("density", arrays, found)


@torch.no_grad()
def hard_to_detect(scene: Scene, system: Redundancy, surface: Surface, count: int = 300, shown: int = 8) -> Picture:
    """The article's Fig. 5: of the first ``count`` test images, attacked, those that turn the victim at least risk."""
    x, y = scene.images(count)
    output = system.respond(scene.attacked(surface, x, y))
    assert output.risk is not None
    turned = (system.victim(x).argmax(1) == y) & (output.logits.argmax(1) != y)
    risk = output.risk.masked_fill(~turned, float("inf"))
    return gallery(scene, surface, risk.argsort()[:shown].tolist())


def pearson(scores: Tensor) -> Tensor:
    """(J, J) correlations of the columns of scores (n, J); a constant column correlates with nothing (0)."""
    centered = scores.double() - scores.double().mean(0)
    unit = centered / centered.norm(dim=0).clamp_min(1e-12)
    found: Tensor = unit.T @ unit
    return found


def _features(network: nn.Module, x: Tensor) -> Tensor:
    """(B, D) float64 of the last checkpointed layer."""
    return torch.cat([network(part)[1][-1] for part in torch.split(x, 500)]).double()
