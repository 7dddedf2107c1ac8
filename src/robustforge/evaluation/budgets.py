"""One image under growing budgets: what an attack leaves of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from robustforge.attacks.core.surface import fooled
from robustforge.data.datamodule import ImageData
from robustforge.defenses.base import Defense
from robustforge.evaluation.protocol import Protocol
from robustforge.files import atomic_write

FEWEST = 4  # budgets that make a strip worth drawing


def save_budgets(defense: Defense, data: ImageData, protocol: Protocol, path: Path, device: torch.device) -> None:
    """Writes the first test image under the attacks of the protocol's first suite at every budget, end to end.

    The file holds ``clean`` (C, H, W), ``attacked`` (A, E, C, H, W), ``prediction`` (A, E), ``label`` (), ``eps`` (E,)
    in pixel units and ``attack`` (A,), names. Nothing is written for protocols with fewer than four budgets.

    Args:
        defense: trained, on ``device``.
        data: whose first test image is shown.
        protocol: whose attacks and budgets are shown.
        path: file to write.
        device: where it runs.
    """
    if len(protocol.budgets) < FEWEST:
        return
    surface = defense.surfaces()["end_to_end"]
    x = data.test.pixels(slice(1), device)
    y = data.test.labels[:1].to(device)
    attacks = list(next(iter(protocol.suites.values())).attacks.values())
    rows = [[attack(surface, x, y, threat).x_adv for threat in protocol.budgets] for attack in attacks]
    attacked = torch.stack([torch.cat(row) for row in rows])
    answers = [fooled(surface, row, y.expand(len(row)))[1].logits.argmax(1) for row in attacked]
    with atomic_write(path) as half:
        np.savez(
            half,
            clean=x[0].cpu().numpy(),
            attacked=attacked.cpu().numpy(),
            label=y[0].cpu().numpy(),
            prediction=torch.stack(answers).cpu().numpy(),
            eps=np.array([threat.eps for threat in protocol.budgets]),
            attack=np.array([attack.name for attack in attacks]),
        )
