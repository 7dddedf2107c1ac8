"""What a run draws: arrays saved while the defense is at hand, and figures made from files alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from robustforge.attacks.core.attack import Attack
from robustforge.data.datamodule import ImageData
from robustforge.defenses.base import Defense
from robustforge.evaluation.correlation import save_correlation
from robustforge.evaluation.gallery import save_gallery
from robustforge.evaluation.generation import save_generation
from robustforge.evaluation.geometry import save_geometry
from robustforge.reporting.figures.abstention_curves import abstention_curves
from robustforge.reporting.figures.accuracy import accuracy_bars, security_curve
from robustforge.reporting.figures.budgets import budgets
from robustforge.reporting.figures.correlation import correlation
from robustforge.reporting.figures.curves import training_curves
from robustforge.reporting.figures.gallery import gallery
from robustforge.reporting.figures.generation import class_grid
from robustforge.reporting.figures.geometry import geometry
from robustforge.types import Threat


def save_arrays(
    defense: Defense, data: ImageData, attack: Attack, budget: Threat, folder: Path, device: torch.device, seed: int
) -> dict[str, float]:
    """Writes what the figures are drawn from, as far as the defense has it, and what was measured on the way.

    Args:
        defense: trained, on ``device``.
        data: whose test images are shown.
        attack: shown.
        budget: its radius.
        folder: the run folder.
        device: where it runs.
        seed: of samples.

    Returns:
        Figures for the result, by name.
    """
    save_gallery(defense, data, attack, budget, folder / "gallery.npz", device)
    surfaces, trained_on = defense.surfaces(), defense.trained_on()
    if "transfer" in surfaces and trained_on is not None:
        path = folder / "gallery_transfer.npz"
        save_gallery(defense, data, *trained_on, path, device, surface=surfaces["transfer"])
    save_geometry(defense, data, attack, budget, folder / "geometry.npz", device)
    found = save_correlation(defense, data, attack, budget, folder / "correlation.npz", device)
    return found | save_generation(defense, data, folder / "generation.npz", device, seed)


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
        gallery(folder),
        gallery(folder, "gallery_transfer"),
        budgets(folder),
        class_grid(folder),
        geometry(folder),
        correlation(folder),
        accuracy_bars(result, folder / "figures" / "accuracy.png"),
        security_curve(result, folder / "figures" / "security_curve.png"),
        abstention_curves(records, result, folder / "figures" / "abstention.png"),
    ]
    return [*training_curves(folder), *(path for path in made if path is not None)]
