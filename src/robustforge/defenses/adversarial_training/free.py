"""Free adversarial training (Shafahi et al. 2019, arXiv:1904.12843): one backward pass gives both gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from robustforge.attacks.core.geometry import ascent_direction, project
from robustforge.types import Threat


class FreePerturbation:
    """The perturbation that lives on from step to step (Algorithm 1); each batch is shown several times in a row.

    Attributes:
        threat: the training budget, which is the length of a step too.

    Notes:
        It begins at 0 in every epoch, so that a run that was killed between epochs continues as the unbroken one would
        have. It stays within [0, 1] together with its image, which the authors' code leaves to the network's input.
    """

    def __init__(self, threat: Threat) -> None:
        self.threat = threat
        self._clean: Tensor | None = None
        self._attacked: Tensor | None = None
        self._delta: Tensor | None = None

    def reset(self) -> None:
        """Starts again from 0."""
        self._delta = None

    def attack(self, x: Tensor) -> Tensor:
        """The images x (B, C, H, W) as perturbed so far: what the loss is computed on."""
        delta = torch.zeros_like(x) if self._delta is None else self._delta
        self._clean, self._attacked = x, project(x + delta, x, self.threat).detach().requires_grad_(True)
        return self._attacked

    def ascend(self) -> None:
        """One step along the gradient that the loss's backward pass left at the images."""
        if self._clean is None or self._attacked is None or self._attacked.grad is None:
            return
        gradient, self._attacked.grad = self._attacked.grad.float(), None
        moved = self._attacked.detach() + self.threat.eps * ascent_direction(gradient, self.threat)
        self._delta = project(moved, self._clean, self.threat) - self._clean
