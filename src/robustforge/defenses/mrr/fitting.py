"""What modular robust redundancy measures after training: densities, distribution functions, and the leak."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from robustforge.types import Batch

if TYPE_CHECKING:
    from robustforge.defenses.mrr.module import ModularRobustRedundancy


@torch.no_grad()
def fit_densities(defense: ModularRobustRedundancy, batches: Iterable[Batch]) -> None:
    """Stacks the defenders and fits the densities of their features on training images, in one stream."""
    defense.latent.load(defense.defenders)
    moments = [density.moments() for density in defense.latent.densities]
    for batch in batches:
        for sums, features in zip(moments, defense.latent.features(batch.x), strict=True):
            sums.add(features, batch.y)
    for density, sums in zip(defense.latent.densities, moments, strict=True):
        density.fit(sums, defense.latent_settings.variance_kept)


@torch.no_grad()
def fit_fusion(defense: ModularRobustRedundancy, batches: Iterable[Batch]) -> None:
    """Fits distribution functions, correlations and mixture on held-out images."""
    scores = [torch.zeros(0, defense.scores_count, device=defense.device)]
    labels = [torch.zeros(0, dtype=torch.int64, device=defense.device)]
    for batch in batches:
        labels.append(defense.undefended(batch.x).argmax(1))
        scores.append(defense.scores(batch.x, labels[-1]))
    defense.fusion.fit(torch.cat(scores), torch.cat(labels), defense.seed)


def fit_leak(defense: ModularRobustRedundancy, batches: Iterable[Batch]) -> None:
    """Measures each defender's precision on attacked *test* images, as the released code does. Never a defense."""
    settings, surface = defense.fusion.settings, defense.surfaces()["victim"]
    clean, attacked = [], []
    assert settings.leak_threat is not None
    for batch in batches:
        right, flags = _flags(defense, batch.x, batch.y)
        clean.append(flags[right])
        for attack in settings.leak_attacks.values():
            found = attack(surface, batch.x, batch.y, settings.leak_threat, index=batch.index, seed=defense.seed)
            still, flags = _flags(defense, found.x_adv, batch.y)
            attacked.append(flags[right & ~still])
    defense.leak.fit(torch.cat(clean), torch.cat(attacked))


@torch.no_grad()
def _flags(defense: ModularRobustRedundancy, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """((B,) whether the victim is right, (B, J) the defenders' flags at SP)."""
    label = defense.undefended(x).argmax(1)
    return label == y, defense.fusion.excess(defense.scores(x, label), label) > 0
