"""How alike the scores of the defenders are, clean and attacked: redundancy measured, not claimed."""

from __future__ import annotations

import torch
from torch import Tensor

from robustforge.attacks.core.surface import Surface
from robustforge.defenses.figures import Figure, Picture, Scene
from robustforge.defenses.mrr.system import Redundancy


def mrr_figures(system: Redundancy, surface: Surface) -> dict[str, Figure]:
    """The figures of one defense, by name; ``surface`` is attacked for them."""
    return {"correlation": lambda scene: correlation(scene, system, surface)} if system.count > 1 else {}


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


def pearson(scores: Tensor) -> Tensor:
    """(J, J) correlations of the columns of scores (n, J); a constant column correlates with nothing (0)."""
    centered = scores.double() - scores.double().mean(0)
    unit = centered / centered.norm(dim=0).clamp_min(1e-12)
    found: Tensor = unit.T @ unit
    return found
