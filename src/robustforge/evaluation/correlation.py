"""How alike the scores of a defense's detectors are, clean and attacked: redundancy measured, not claimed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robustforge.attacks.core.attack import Attack
from robustforge.data.datamodule import ImageData
from robustforge.defenses.base import Defense
from robustforge.files import atomic_write
from robustforge.types import Threat


def pearson(scores: Tensor) -> Tensor:
    """(J, J) correlations of the columns of scores (n, J); a constant column correlates with nothing (0)."""
    centerd = scores.double() - scores.double().mean(0)
    unit = centerd / centerd.norm(dim=0).clamp_min(1e-12)
    found: Tensor = unit.T @ unit
    return found


def save_correlation(
    defense: Defense,
    data: ImageData,
    attack: Attack,
    threat: Threat,
    path: Path,
    device: torch.device,
    count: int = 300,
) -> dict[str, float]:
    """Writes ``clean, attacked`` (J, J) correlation matrices and ``title`` as npz.

    Nothing is written for a defense without :meth:`Defense.detector_scores`.

    Args:
        defense: trained.
        data: its first ``count`` test images are scored.
        attack: the run's main attack, end to end.
        threat: its budget.
        path: file to write.
        device: where it runs.
        count: number of images.

    Returns:
        Mean correlation of two different detectors, ``score_correlation_clean`` and ``score_correlation_attacked``.
    """
    x = data.test.pixels(slice(count), device)
    y = data.test.labels[:count].to(device)
    with torch.no_grad():
        clean = defense.detector_scores(x)
    if clean is None:
        return {}
    x_adv = attack(defense.surfaces()["end_to_end"], x, y, threat).x_adv
    with torch.no_grad():
        attacked = defense.detector_scores(x_adv)
    assert attacked is not None
    matrices = {"clean": pearson(clean), "attacked": pearson(attacked)}
    plain: dict[str, Any] = {name: value.cpu().numpy() for name, value in matrices.items()}
    with atomic_write(path) as half:
        np.savez(half, title=f"{attack.name} on end_to_end, {threat.norm} {threat.eps:.4g}", **plain)
    others = 1 - torch.eye(clean.shape[1], dtype=torch.float64, device=device)
    return {f"score_correlation_{name}": float((m * others).sum() / others.sum()) for name, m in matrices.items()}
