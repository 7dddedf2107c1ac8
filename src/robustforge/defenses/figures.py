"""What a defense shows: a figure is a function that computes arrays and says by which kind of drawing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from robustforge.attacks.core.attack import Attack
from robustforge.attacks.core.surface import Surface, fooled
from robustforge.data.datamodule import ImageData
from robustforge.files import write_arrays
from robustforge.types import Threat

# each drawn by a module of robustforge.reporting.figures
Kind = Literal["gallery", "samples", "pairs", "scatter", "density", "correlation", "budgets"]


@dataclass(frozen=True)
class Scene:
    """What figures are computed from.

    Attributes:
        data: whose images are shown.
        attack: the run's main attack.
        threat: its budget.
        device: where the defense lies.
        seed: of samples.
        threshold: above which the system rejects, for attacks that know it.
    """

    data: ImageData
    attack: Attack
    threat: Threat
    device: torch.device
    seed: int = 0
    threshold: float | None = None

    def images(self, count: int) -> tuple[Tensor, Tensor]:
        """The first ``count`` test images (n, C, H, W) in [0, 1], and their labels (n,)."""
        test = self.data.test
        return test.pixels(slice(count), self.device), test.labels[:count].to(self.device)

    def attacked(self, surface: Surface, x: Tensor, y: Tensor) -> Tensor:
        """Images (n, C, H, W) under the attack."""
        return self.attack(surface, x, y, self.threat).x_adv

    def title(self, surface: Surface) -> str:
        """Attack, surface and budget in words."""
        return f"{self.attack.name} on {surface.name}, {self.threat.norm} {self.threat.eps:.4g}"


@dataclass(frozen=True)
class Picture:
    """What one figure shows.

    Attributes:
        kind: of the drawing, in whose module of ``robustforge.reporting.figures`` it says which arrays there must be.
        arrays: tensors, arrays and texts by name.
        found: numbers measured on the way, for the result.
    """

    kind: Kind
    arrays: Mapping[str, Any]
    found: Mapping[str, float] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Writes kind and arrays as npz."""
        plain = {name: v.detach().cpu().numpy() if isinstance(v, Tensor) else v for name, v in self.arrays.items()}
        write_arrays(path, kind=self.kind, **plain)


Figure = Callable[[Scene], Picture]


def gallery(scene: Scene, surface: Surface, index: Sequence[int] = range(10), worst: int = 0) -> Picture:
    """Test images clean, attacked on ``surface`` and rebuilt, with what the system answers before and after.

    Args:
        scene: whose images and attack are shown.
        surface: that is attacked.
        index: positions in the test split; later ones than there are images are left out.
        worst: how many of them, from the first, are the worst cases of the records.
    """
    rows = torch.tensor([i for i in index if i < len(scene.data.test)], dtype=torch.long)
    x = scene.data.test.pixels(rows, scene.device)
    y = scene.data.test.labels[rows].to(scene.device)
    how: dict[str, Any] = {"index": rows.to(scene.device), "seed": scene.seed, "threshold": scene.threshold}
    x_adv = scene.attack(surface, x, y, scene.threat, **how).x_adv
    _, before = fooled(surface, x, y)
    _, output = fooled(surface, x_adv, y)
    arrays = {"clean": x, "attacked": x_adv, "label": y, "prediction": output.logits.argmax(1), "index": rows}
    arrays["clean_prediction"] = before.logits.argmax(1)
    if output.purified is not None:
        arrays["rebuilt"] = output.purified.clamp(0, 1)
    if output.risk is not None:
        arrays["risk"] = output.risk
    told = {"title": scene.title(surface), "eps": scene.threat.eps, "norm": scene.threat.norm, "worst": worst}
    return Picture("gallery", {**arrays, **told})
