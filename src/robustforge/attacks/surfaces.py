"""Surfaces: what an attacker differentiates, and the system that the result is judged by.

The paper's number and the adapted attack's number differ in the surface and in nothing else. A surface is data: two
functions and their networks. Attacks never learn which defense they are attacking.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robustforge.types import DefenseOutput

Objective = Callable[[Tensor, Tensor], Tensor]  # (logits (B, K), y (B,)) -> (B,), higher = more adversarial


@dataclass(frozen=True)
class Surface:
    """What an attack differentiates, and what judges it.

    Attributes:
        name: as written in configs, records and tables.
        logits: (x (B, C, H, W), y (B,)) -> (B, K). ``y`` is there for protocols that hand the label to the defense
            (the released code of Memory Defense opens the slot by it); honest surfaces ignore it.
        system: the deployed system, (x, y) -> DefenseOutput. Success is always judged here, in float32.
        modules: the networks behind the two functions; the engine freezes them and puts them in eval mode.
        extra: further (weight, logits function) terms of the objective, for attacks on several parts at once.
    """

    name: str
    logits: Callable[[Tensor, Tensor], Tensor]
    system: Callable[[Tensor, Tensor], DefenseOutput]
    modules: nn.Module
    extra: tuple[tuple[float, Callable[[Tensor, Tensor], Tensor]], ...] = ()

    def evaluate(self, x: Tensor, y: Tensor, objective: Objective) -> tuple[Tensor, Tensor]:
        """The attacker's view of one batch.

        Returns:
            (logits (B, K), value (B,)): ``value`` is what the attacker maximises, extra terms included.
        """
        logits = self.logits(x, y)
        value = objective(logits.float(), y)
        for weight, term in self.extra:
            if weight:
                value = value + weight * objective(term(x, y).float(), y)
        return logits, value


def end_to_end(defense: Callable[[Tensor], DefenseOutput], modules: nn.Module, name: str = "end_to_end") -> Surface:
    """The whole system by plain automatic differentiation."""
    return Surface(name, lambda x, _: defense(x).logits, lambda x, _: defense(x), modules)


def transfer(source: nn.Module, target: Surface, name: str = "transfer") -> Surface:
    """Attacks ``source`` (B, C, H, W) -> (B, K) and judges ``target``'s system: the oblivious attacker."""
    both = nn.ModuleList([source, target.modules])
    return Surface(name, lambda x, _: source(x), target.system, both)


@torch.no_grad()
def fooled(surface: Surface, x: Tensor, y: Tensor, threshold: float | None = None) -> tuple[Tensor, DefenseOutput]:
    """The one success rule, without the budget: the label is wrong and the system accepts the input.

    Args:
        surface: whose system is asked; evaluated in float32.
        x: (B, C, H, W) in [0, 1].
        y: (B,) true labels.
        threshold: inputs with a risk above it are rejected; None accepts everything.

    Returns:
        ((B,) bool, the system's output).
    """
    output = surface.system(x, y)
    wrong = output.logits.argmax(1) != y
    if threshold is not None and output.risk is not None:
        wrong = wrong & (output.risk <= threshold)
    return wrong, output
