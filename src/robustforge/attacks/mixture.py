"""Several attacks shared out over the images of a set, each at a budget of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from robustforge.attacks.core.attack import Attack
from robustforge.attacks.core.surface import Surface
from robustforge.randomness import SampleRandom
from robustforge.types import AttackResult, Threat, UserError


@dataclass(frozen=True)
class Mixture(Attack):
    """Every image is attacked by one of the attacks, drawn by its sample number.

    Attributes:
        attacks: by label.
        budgets: by the same labels.
        name: in records.

    Raises:
        UserError: no attack, or labels that differ.
    """

    attacks: Mapping[str, Attack]
    budgets: Mapping[str, Threat]
    name: str = "mixture"

    def __post_init__(self) -> None:
        if not self.attacks or set(self.attacks) != set(self.budgets):
            raise UserError(
                f"Attack {self.name} has attacks {', '.join(self.attacks) or 'none'} and budgets "
                f"{', '.join(self.budgets) or 'none'}: give at least one attack, and a budget for each."
            )

    def fits(self, shape: Sequence[int], num_classes: int, threat: Threat) -> None:
        """All of them must, each with its own budget."""
        for label, attack in self.attacks.items():
            attack.fits(shape, num_classes, self.budgets[label])

    def __call__(
        self,
        surface: Surface,
        x: Tensor,
        y: Tensor,
        threat: Threat,
        *,
        index: Tensor | None = None,
        seed: int = 0,
        threshold: float | None = None,
    ) -> AttackResult:
        """See :class:`robustforge.attacks.core.attack.Attack`; ``threat`` gives way to the attacks' own budgets."""
        index = torch.arange(len(x), device=x.device) if index is None else index
        draw = SampleRandom(seed, self.name).uniform(index, (1,)).flatten()
        choice = (draw * len(self.attacks)).long()
        x_adv, success = x.detach().clone(), torch.zeros_like(index, dtype=torch.bool)
        forwards, backwards = torch.zeros_like(index), torch.zeros_like(index)
        for number, (label, attack) in enumerate(self.attacks.items()):
            rows = (choice == number).nonzero().flatten()
            if len(rows):
                result = attack(
                    surface, x[rows], y[rows], self.budgets[label], index=index[rows], seed=seed, threshold=threshold
                )
                x_adv[rows], success[rows] = result.x_adv, result.success
                forwards[rows], backwards[rows] = result.forwards, result.backwards
        return AttackResult(x_adv, success, forwards, backwards)
