"""Surfaces: what an attacker differentiates, and the system that the result is judged by.

The paper's number and the adapted attack's number differ in the surface and in nothing else. A surface is data: two
functions and their networks. Attacks never learn which defense they are attacking.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from robustforge.nn.straight_through import backward_pass
from robustforge.types import DefenseOutput, UserError

Objective = Callable[[Tensor, Tensor], Tensor]  # (logits (B, K), y (B,)) -> (B,), higher = more adversarial


@dataclass(frozen=True)
class Surface:
    """What an attack differentiates, and what judges it.

    Attributes:
        name: as written in configs, records and tables.
        attacker_logits: (x (B, C, H, W), y (B,)) -> one or more logits (B, K), from one forward pass. The first stands
            for the system's answer; the others are further parts under attack (such as a selector). ``y`` is there for
            protocols that hand the label to the defense (the released code of Memory Defense opens the slot by it);
            honest surfaces ignore it.
        system: the deployed system, (x, y) -> DefenseOutput. Success is always judged here, in float32.
        modules: the networks behind the two functions; the engine freezes them and puts them in eval mode.
        weights: of the views in the attacker's objective.
        attacker_output: the whole answer as the attacker differentiates it, (x, y) -> DefenseOutput with its risk, for
            attacks that evade a detector; None: ``system`` itself.
        draws: forward passes over whose randomness the objective is averaged (expectation over transformation, Athalye
            et al. 2018, arXiv:1707.07397); 1 for deterministic defenses.
        aimed: hand ``attacker_logits`` (and ``attacker_output``) the class that a targeted attack wants in place of the
            label, for parts that can be told which way to go (the slot of a memory), or that judge by
            the class (a mixture component).
        start: images to begin at, (target classes (n,), sample numbers (n,), restart) -> (n, C, H, W), which the
            attack projects onto its ball; None where the system offers none.
        compiled: whether its passes are compiled, so that the weights in the networks must stay where they are.
    """

    name: str
    attacker_logits: Callable[[Tensor, Tensor], Sequence[Tensor]]
    system: Callable[[Tensor, Tensor], DefenseOutput]
    modules: nn.Module
    weights: tuple[float, ...] = (1.0,)
    attacker_output: Callable[[Tensor, Tensor], DefenseOutput] | None = None
    draws: int = 1
    aimed: bool = False
    start: Callable[[Tensor, Tensor, int], Tensor] | None = None
    compiled: bool = False

    def logits(self, x: Tensor, y: Tensor) -> Tensor:
        """The first view, (B, K)."""
        return self.attacker_logits(x, y)[0]

    def answer(self, x: Tensor, y: Tensor) -> DefenseOutput:
        """The whole answer as the attacker differentiates it: ``attacker_output``, else ``system``."""
        return (self.attacker_output or self.system)(x, y)

    def evaluate(self, x: Tensor, y: Tensor, objective: Objective, aim: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The attacker's view of one batch.

        Args:
            x: (B, C, H, W).
            y: (B,) true labels, for protocols that hand them to the defense.
            objective: what is maximized.
            aim: its second argument (such as target classes); ``y`` by default.

        Returns:
            (logits (B, K) of the first view, mean over draws; value (B,)): ``value`` is what the attacker maximizes.
        """
        aim = y if aim is None else aim
        if self.draws > 1:
            x, y, aim = (tensor.repeat(self.draws, *[1] * (tensor.dim() - 1)) for tensor in (x, y, aim))
        views = self.attacker_logits(x, aim if self.aimed else y)
        terms = [weight * objective(view.float(), aim) for weight, view in zip(self.weights, views, strict=True)]
        value = torch.stack(terms).sum(0)
        if self.draws == 1:
            return views[0], value
        return views[0].view(self.draws, -1, views[0].shape[1]).mean(0), value.view(self.draws, -1).mean(0)


@contextmanager
def frozen(modules: nn.Module) -> Iterator[None]:
    """Eval mode and no parameter gradients inside; every module's own mode and every flag restored on the way out."""
    modes = [(module, module.training) for module in modules.modules()]
    flags = [(parameter, parameter.requires_grad) for parameter in modules.parameters()]
    try:
        modules.eval()
        for parameter, _ in flags:
            parameter.requires_grad_(False)
        with torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode
        for parameter, flag in flags:
            parameter.requires_grad_(flag)


def end_to_end(defense: Callable[[Tensor], DefenseOutput], modules: nn.Module, name: str = "end_to_end") -> Surface:
    """The whole system by plain automatic differentiation."""
    return Surface(name, lambda x, _: (defense(x).logits,), lambda x, _: defense(x), modules)


def transfer(source: nn.Module, target: Surface, name: str = "transfer") -> Surface:
    """Attacks ``source`` (B, C, H, W) -> (B, K) and judges ``target``'s system: the oblivious attacker."""
    both = nn.ModuleList([source, target.modules])
    return Surface(name, lambda x, _: (source(x),), target.system, both)


def eot(surface: Surface, draws: int, name: str = "eot") -> Surface:
    """The same surface with its objective averaged over ``draws`` passes, for defenses that draw random numbers.

    Raises:
        UserError: fewer than one draw.
    """
    if draws < 1:
        raise UserError(f"Expectation over transformation with draws={draws}: give at least 1.")
    return replace(surface, name=name, draws=draws)


def bpda(
    purify: Callable[[Tensor], Tensor],
    classify: Callable[[Tensor], Tensor],
    target: Surface,
    surrogate: Callable[[Tensor], Tensor] | None = None,
    name: str = "bpda",
) -> Surface:
    """A purifier without usable gradients, replaced on the way back (Athalye et al. 2018, arXiv:1802.00420).

    Args:
        purify: (B, C, H, W) -> (B, C, H, W), run as it is going forward.
        classify: purified images -> logits (B, K), differentiable.
        target: whose system judges.
        surrogate: differentiable stand-in for ``purify``; None: the identity.
        name: of the surface.
    """
    return replace(
        target,
        name=name,
        attacker_logits=lambda x, _: (classify(backward_pass(purify, x, surrogate)),),
        attacker_output=None,
    )


def compiled(surface: Surface, backend: str = "inductor") -> Surface:
    """The same surface with its differentiated part through ``torch.compile``; judging stays as it is."""
    quick = torch.compile(surface.attacker_logits, dynamic=True, backend=backend)
    return replace(surface, attacker_logits=quick, compiled=True)


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
    output = surface.system(x.clone(), y)  # a network may write into its input
    wrong = output.logits.argmax(1) != y
    if threshold is not None and output.risk is not None:
        wrong = wrong & (output.risk <= threshold)
    return wrong, output
