"""Where clean and attacked images lie in feature space, for a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from robustforge.attacks.core.attack import Attack
from robustforge.data.datamodule import ImageData
from robustforge.defenses.base import Defense
from robustforge.files import atomic_write
from robustforge.types import Threat


def save_geometry(
    defense: Defense,
    data: ImageData,
    attack: Attack,
    threat: Threat,
    path: Path,
    device: torch.device,
    count: int = 300,
) -> None:
    """Writes ``clean, attacked`` (n, d) features, ``label`` (n,), ``anchors`` (K, d) and ``title`` as npz.

    Nothing is written for a defense without :meth:`Defense.embed`.

    Args:
        defense: trained; attacked end to end.
        data: its first ``count`` test images are shown.
        attack: the run's main attack.
        threat: its budget.
        path: file to write.
        device: where it runs.
        count: number of images.
    """
    x = data.test.pixels(slice(count), device)
    y = data.test.labels[:count].to(device)
    with torch.no_grad():
        clean = defense.embed(x)
    if clean is None:
        return
    surface = defense.surfaces()["end_to_end"]
    x_adv = attack(surface, x, y, threat).x_adv
    with torch.no_grad():
        attacked, anchors = defense.embed(x_adv), defense.anchors()
    assert attacked is not None
    arrays = {"clean": clean, "attacked": attacked, "label": y}
    if anchors is not None:
        arrays["anchors"] = anchors
    plain: dict[str, Any] = {name: value.detach().cpu().numpy() for name, value in arrays.items()}
    with atomic_write(path) as half:
        np.savez(half, title=f"{attack.name} on end_to_end, {threat.norm} {threat.eps:.4g}", **plain)
