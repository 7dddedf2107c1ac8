"""A few images to look at: clean, attacked, rebuilt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from robustforge.attacks.core.attack import Attack
from robustforge.attacks.core.surface import Surface, fooled
from robustforge.data.datamodule import ImageData
from robustforge.defenses.base import Defense
from robustforge.files import atomic_write
from robustforge.types import Threat

# the strongest first: the picture shows what the adapted attacker does
_PREFERRED = ("soft_slot", "end_to_end")


def save_gallery(
    defense: Defense,
    data: ImageData,
    attack: Attack,
    threat: Threat,
    path: Path,
    device: torch.device,
    count: int = 10,
    surface: Surface | None = None,
) -> None:
    """Writes ``clean, attacked, rebuilt`` (n, C, H, W), ``label, prediction`` (n,) and ``title`` as npz.

    Args:
        defense: trained; shown on its most adapted surface, unless told otherwise.
        data: its first ``count`` test images are shown.
        attack: the run's main attack.
        threat: its budget.
        path: file to write.
        device: where it runs.
        count: number of images.
        surface: shown in place of that one.
    """
    if surface is None:
        surfaces = defense.surfaces()
        surface = next(surfaces[name] for name in _PREFERRED if name in surfaces)
    x = data.test.pixels(slice(count), device)
    y = data.test.labels[:count].to(device)
    x_adv = attack(surface, x, y, threat).x_adv
    _, output = fooled(surface, x_adv, y)
    rebuilt = x_adv if output.purified is None else output.purified.clamp(0, 1)
    arrays = {"clean": x, "attacked": x_adv, "rebuilt": rebuilt, "label": y, "prediction": output.logits.argmax(1)}
    title = f"{attack.name} on {surface.name}, {threat.norm} {threat.eps:.4g}"
    plain: dict[str, Any] = {name: value.detach().cpu().numpy() for name, value in arrays.items()}
    with atomic_write(path) as half:
        np.savez(half, title=title, **plain)
