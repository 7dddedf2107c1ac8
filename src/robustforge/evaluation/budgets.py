"""One image under growing budgets: what an attack leaves of it."""

from __future__ import annotations

from pathlib import Path

import torch

from robustforge.attacks.core.surface import fooled
from robustforge.data.datamodule import ImageData
from robustforge.defenses.base import Defense
from robustforge.defenses.figures import Picture
from robustforge.evaluation.protocol import Protocol

FEWEST = 4  # budgets that make a strip worth drawing


def save_budgets(defense: Defense, data: ImageData, protocol: Protocol, path: Path, device: torch.device) -> None:
    """Writes the first test image under the attacks of the first suite that takes every budget, end to end.

    Args:
        defense: trained, on ``device``.
        data: whose first test image is shown.
        protocol: whose A attacks and E budgets are shown; nothing is written for fewer than four budgets.
        path: file to write, see :func:`robustforge.reporting.figures.budgets.budgets`.
        device: where it runs.
    """
    suites = [suite for suite in protocol.suites.values() if all(map(suite.takes, protocol.budgets))]
    if len(protocol.budgets) < FEWEST or not suites:
        return
    surface = defense.surfaces()["end_to_end"]
    x = data.test.pixels(slice(1), device)
    y = data.test.labels[:1].to(device)
    attacks = list(suites[0].attacks.values())
    rows = [[attack(surface, x, y, threat).x_adv for threat in protocol.budgets] for attack in attacks]
    attacked = torch.stack([torch.cat(row) for row in rows])
    answers = [fooled(surface, row, y.expand(len(row)))[1].logits.argmax(1) for row in attacked]
    arrays = {"clean": x[0], "attacked": attacked, "label": y[0], "prediction": torch.stack(answers)}
    words = {"eps": [threat.eps for threat in protocol.budgets], "attack": [attack.name for attack in attacks]}
    Picture("budgets", {**arrays, **words}).save(path)
