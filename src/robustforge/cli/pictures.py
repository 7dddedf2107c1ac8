"""What a run draws: arrays saved while the defense is at hand, and figures made from files alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from robustforge.attacks.core.attack import Attack
from robustforge.data.datamodule import ImageData
from robustforge.defenses.base import Defense
from robustforge.defenses.figures import Scene
from robustforge.evaluation.budgets import save_budgets
from robustforge.evaluation.figures import save_figures
from robustforge.evaluation.protocol import Protocol
from robustforge.optional import optional
from robustforge.records.contributions import cases, contributions
from robustforge.records.table import read_records
from robustforge.reporting.figures.abstention_curves import abstention_curves
from robustforge.reporting.figures.accuracy import accuracy_figure
from robustforge.reporting.figures.arrays import draw_arrays
from robustforge.reporting.figures.curves import training_curves
from robustforge.reporting.figures.security import security_curve


def save_arrays(
    name: str,
    defense: Defense,
    data: ImageData,
    protocol: Protocol,
    folder: Path,
    device: torch.device,
    seed: int,
    images: int = 12,
) -> dict[str, float]:
    """Writes what the figures are drawn from and returns what was measured on the way: see :func:`save_figures`.

    The gallery shows the cases that the folder's records call the worst, and as many typical ones: 12 ``images`` or
    more, where there are as many.
    """
    count = max(6, -(-images // 2))
    attack = protocol.main or next(iter(next(iter(protocol.suites.values())).attacks.values()))
    budget, shown, surface, limit = protocol.budgets[-1], None, None, None
    with optional("choice of images"):
        if protocol.main is None:  # the one that says most about the result
            attack, surface, limit = _strongest(name, protocol, folder) or (attack, None, None)
        shown = cases(read_records(folder), name, budget.norm, budget.eps, protocol.rates[0], count)
    found = save_figures(defense, Scene(data, attack, budget, device, seed, limit), folder, shown, surface)
    with optional("figure budgets"):
        save_budgets(defense, data, protocol, folder / "budgets.npz", device)
    return found


def _strongest(name: str, protocol: Protocol, folder: Path) -> tuple[Attack, str, float | None] | None:
    """The attack that most images of the last budget fall to, its surface, and the threshold that it knew."""
    records, budget = read_records(folder), protocol.budgets[-1]
    attacks = {attack.name: attack for suite in protocol.suites.values() for attack in suite.attacks.values()}
    for one in contributions(records, name, budget.norm, budget.eps, protocol.rates[0]):
        if one.key.attack in attacks:
            limit = float(records.cells[one.key]["threshold"][0])
            return attacks[one.key.attack], one.key.surface, limit if math.isfinite(limit) else None
    return None


def draw(records: Path, result: dict[str, Any], folder: Path) -> list[Path]:
    """Every figure that the files of a run folder have the data for; one that fails is a warning.

    Args:
        records: the records.
        result: what ``result.json`` will say.
        folder: the run folder.

    Returns:
        Paths of the pictures.
    """
    drawings: dict[str, Callable[[Path], Path | None]] = {
        "accuracy": lambda path: accuracy_figure(result, path),
        "security_curve": lambda path: security_curve(result, path),
        "abstention": lambda path: abstention_curves(records, result, path),
    }
    made = [*training_curves(folder), *draw_arrays(folder)]
    for name, drawing in drawings.items():
        with optional(f"figure {name}"):
            path = drawing(folder / "figures" / f"{name}.png")
            made += [path] if path is not None else []
    return made
