"""What a run draws: arrays saved while the defense is at hand, and figures made from files alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from robustforge.attacks.core.attack import Attack
from robustforge.data.datamodule import ImageData
from robustforge.defenses.base import Defense
from robustforge.defenses.figures import Scene
from robustforge.evaluation.figures import save_figures
from robustforge.reporting.figures.abstention_curves import abstention_curves
from robustforge.reporting.figures.accuracy import accuracy_bars, security_curve
from robustforge.reporting.figures.arrays import draw_arrays
from robustforge.reporting.figures.curves import training_curves
from robustforge.types import Threat


def save_arrays(
    defense: Defense, data: ImageData, attack: Attack, budget: Threat, folder: Path, device: torch.device, seed: int
) -> dict[str, float]:
    """Writes what the figures are drawn from and returns what was measured on the way: see :func:`save_figures`."""
    return save_figures(defense, Scene(data, attack, budget, device, seed), folder)


def draw(records: Path, result: dict[str, Any], folder: Path) -> list[Path]:
    """Every figure that the files of a run folder have the data for.

    Args:
        records: the records.
        result: what ``result.json`` will say.
        folder: the run folder.

    Returns:
        Paths of the pictures.
    """
    made = [
        accuracy_bars(result, folder / "figures" / "accuracy.png"),
        security_curve(result, folder / "figures" / "security_curve.png"),
        abstention_curves(records, result, folder / "figures" / "abstention.png"),
    ]
    return [*training_curves(folder), *draw_arrays(folder), *(path for path in made if path is not None)]
