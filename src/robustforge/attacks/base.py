"""What configs instantiate: an attack is a frozen dataclass of settings, called with (surface, x, y, threat)."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from robustforge.attacks.surfaces import Surface
from robustforge.types import AttackResult, Threat


class Attack(Protocol):
    """A pure callable: same arguments, same answer."""

    name: str

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
        """Attacks a batch.

        Args:
            surface: what is differentiated and what judges.
            x: clean images in [0, 1], (B, C, H, W).
            y: true labels, (B,).
            threat: ball the result must stay in.
            index: (B,) sample numbers, which address the random draws.
            seed: of the random draws.
            threshold: risk above which the attacked system rejects, or None.

        Returns:
            Images, success, and passes spent.
        """
        ...
