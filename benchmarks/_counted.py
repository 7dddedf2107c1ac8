"""Passes through a network, counted from outside: what an attack of any library spends."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor, nn

from benchmarks._victims import Victim


class Counted(nn.Module):
    """A network that counts images in forward and backward passes.

    Args:
        network: (B, C, H, W) -> (B, K).

    Attributes:
        forwards: images that passed forward.
        backwards: images whose gradient was taken.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.forwards, self.backwards = network, 0, 0

    def forward(self, x: Tensor) -> Tensor:
        self.forwards += len(x)
        copy = x.clone()
        if copy.requires_grad:
            copy.register_hook(self._back)
        answer: Tensor = self.network(copy)
        return answer

    def spent(self) -> int:
        """Forward passes or backward passes, whichever are more."""
        return max(self.forwards, self.backwards)

    def _back(self, gradient: Tensor) -> None:
        self.backwards += len(gradient)


def counted(victim: Victim) -> tuple[Victim, Counted]:
    """The same victim behind a fresh count."""
    network = Counted(victim.network).eval()
    return replace(victim, network=network), network
