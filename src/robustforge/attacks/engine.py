"""What every attack needs around it: frozen networks, honest judging, survivors, restarts, precision, batches.

The caller's parameters, modes, gradients and random state are as they were when an attack returns, also when it raises.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from robustforge.attacks.geometry import inside
from robustforge.attacks.surfaces import Surface, fooled
from robustforge.types import AttackResult, Threat

Precision = Literal["auto", "float32", "bf16"]
PRECISIONS = ("auto", "float32", "bf16")


def fast_bf16(device: torch.device) -> bool:
    """Whether bf16 is computed in hardware (GPUs since Ampere, CPUs with AMX or AVX512-BF16); else it is emulated."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and (torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())


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


@dataclass
class Query:
    """A surface under attack: counts passes, applies the precision, and judges in float32.

    Attributes:
        surface: what is attacked.
        threat: the budget results must respect.
        precision: of the attacker's passes; judging is float32 always.
        threshold: risk above which the system rejects, or None.
    """

    surface: Surface
    threat: Threat
    precision: Precision = "auto"
    threshold: float | None = None
    forwards: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))
    backwards: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))

    def start(self, count: int, device: torch.device) -> None:
        """Resets the pass counters for ``count`` images."""
        with torch.inference_mode(False):  # or they could not be counted up where gradients are on again
            self.forwards = torch.zeros(count, dtype=torch.int64, device=device)
            self.backwards = torch.zeros(count, dtype=torch.int64, device=device)

    def gradient(
        self, x: Tensor, y: Tensor, rows: Tensor, objective: Callable[[Tensor, Tensor], Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One forward and backward pass.

        Args:
            x: (n, C, H, W) iterates.
            y: (n,) labels.
            rows: (n,) positions of these images in the batch under attack, for the counters.
            objective: what is maximised, (logits, y) -> (n,).

        Returns:
            (gradient (n, C, H, W) float32, logits (n, K), value (n,)), detached.
        """
        bf16 = self.precision == "bf16" or (self.precision == "auto" and fast_bf16(x.device))
        leaf = x.detach().clone(memory_format=torch.channels_last if x.dim() == 4 else torch.preserve_format)
        leaf.requires_grad_(True)
        with torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=bf16):
            logits, value = self.surface.evaluate(leaf, y, objective)
        gradient = torch.zeros_like(leaf)
        if value.requires_grad:  # else the surface does not depend on x at all: an honest zero
            (gradient,) = torch.autograd.grad(value.sum(), leaf, allow_unused=True, materialize_grads=True)
        self.forwards[rows] += 1
        self.backwards[rows] += 1
        return gradient.float().contiguous(), logits.detach(), value.detach()

    def fools(self, x_adv: Tensor, y: Tensor, rows: Tensor | None = None) -> Tensor:
        """(n,) bool: the system is wrong and accepts, judged in float32 on ``x_adv`` as it stands."""
        if rows is not None:
            self.forwards[rows] += 1
        with torch.autocast(x_adv.device.type, enabled=False):
            return fooled(self.surface, x_adv, y, self.threshold)[0]


def check_images(x: Tensor) -> None:
    """Raises ValueError unless ``x`` is float (B, C, H, W) in [0, 1]."""
    if x.dim() != 4 or not x.is_floating_point():
        raise ValueError(f"Images must be float (B, C, H, W); got {x.dtype} of shape {tuple(x.shape)}.")
    if len(x) and not (float(x.min()) >= 0 and float(x.max()) <= 1):
        raise ValueError(
            f"Images must lie in [0, 1]; these span [{float(x.min()):.4g}, {float(x.max()):.4g}]. "
            "Normalisation belongs inside the network."
        )


def finish(query: Query, x: Tensor, x_adv: Tensor, y: Tensor) -> AttackResult:
    """Judges the images as returned and asserts the budget.

    Raises:
        RuntimeError: the attack left the ball or made NaN; a bug of the attack, never of the caller.
    """
    x_adv = x_adv.detach().float()
    if len(x) and not bool(inside(x_adv, x, query.threat).all()):
        raise RuntimeError("The attack returned images outside its budget or outside [0, 1].")
    return AttackResult(x_adv, query.fools(x_adv, y), query.forwards, query.backwards)
