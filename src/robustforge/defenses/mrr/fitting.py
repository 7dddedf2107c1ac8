"""What modular robust redundancy measures after training: densities, distribution functions, and the leak."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import cast

import torch
from torch import Tensor

from robustforge.attacks.core.surface import Surface
from robustforge.defenses.mrr.density import FeatureDensity
from robustforge.defenses.mrr.latent import LatentDefender, LatentDetector
from robustforge.defenses.mrr.system import Redundancy
from robustforge.types import Batch


@torch.no_grad()
def fit_densities(
    latent: LatentDetector, defenders: Sequence[LatentDefender], variance_kept: float, batches: Iterable[Batch]
) -> None:
    """Stacks the defenders and fits the densities of their features on training images, in one stream."""
    latent.load(defenders)
    densities = cast(list[FeatureDensity], list(latent.densities))  # a ModuleList does not say what it holds
    moments = [density.moments() for density in densities]
    for batch in batches:
        for sums, features in zip(moments, latent.features(batch.x), strict=True):
            sums.add(features, batch.y)
    for density, sums in zip(densities, moments, strict=True):
        density.fit(sums, variance_kept)


@torch.no_grad()
def fit_fusion(system: Redundancy, seed: int, batches: Iterable[Batch]) -> None:
    """Fits distribution functions, correlations and mixture on held-out images."""
    assert system.fusion is not None
    device = system.fusion.mean.device
    scores = [torch.zeros(0, system.count, device=device)]
    labels = [torch.zeros(0, dtype=torch.int64, device=device)]
    for batch in batches:
        label, found = system.judged(batch.x)
        labels.append(label)
        scores.append(found)
    system.fusion.fit(torch.cat(scores), torch.cat(labels), seed)


def fit_leak(system: Redundancy, surface: Surface, seed: int, batches: Iterable[Batch]) -> None:
    """Measures each defender's precision on attacked *test* images, as the released code does. Never a defense."""
    assert system.fusion is not None
    assert system.leak is not None
    settings = system.fusion.settings
    clean, attacked = [], []
    assert settings.leak_threat is not None
    for batch in batches:
        right, flags = _flags(system, batch.x, batch.y)
        clean.append(flags[right])
        for attack in settings.leak_attacks.values():
            found = attack(surface, batch.x, batch.y, settings.leak_threat, index=batch.index, seed=seed)
            still, flags = _flags(system, found.x_adv, batch.y)
            attacked.append(flags[right & ~still])
    system.leak.fit(torch.cat(clean), torch.cat(attacked))


@torch.no_grad()
def _flags(system: Redundancy, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """((B,) whether the victim is right, (B, J) the defenders' flags at SP)."""
    assert system.fusion is not None
    label, scores = system.judged(x)
    return label == y, system.fusion.excess(scores, label) > 0
