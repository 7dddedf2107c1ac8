"""Evidence on whether an attack's optimization worked, kept while it runs."""

from __future__ import annotations

import torch
from torch import Tensor

from robustforge.types import Trace


class TraceKeeper:
    """Of each image: how much of its first gradient was zero, its first objective, its best one, and when that was."""

    def __init__(self, images: int, device: torch.device) -> None:
        unknown = torch.full((images,), float("nan"), device=device)
        self._zeros, self._first, self._best = unknown, unknown.clone(), unknown.clone()
        self._best_at = torch.zeros(images, dtype=torch.int64, device=device)

    def record(self, rows: Tensor, gradient: Tensor, value: Tensor, step: Tensor) -> None:
        """Enters a step of images ``rows`` (n,), each once: its gradient, its objective (n,) and its number (n,)."""
        first = self._first[rows]
        new = first.isnan()
        if bool(new.any()):
            self._zeros[rows[new]] = (gradient[new] == 0).flatten(1).float().mean(1)
            self._first[rows[new]] = value[new]
        better = new | (value > self._best[rows])
        self._best[rows] = torch.where(better, value, self._best[rows])
        self._best_at[rows] = torch.where(better, step, self._best_at[rows])

    def result(self, backwards: Tensor) -> Trace | None:
        """The trace, given each image's number of backward passes (B,); None if there was none at all."""
        best_at = torch.where(self._first.isnan(), self._first, self._best_at / (backwards - 1).clamp(min=1))
        return Trace(self._zeros, self._best - self._first, best_at) if backwards.any() else None
