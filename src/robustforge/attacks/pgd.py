"""PGD: projected gradient ascent from random starts (Madry et al. 2018, arXiv:1706.06083)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from robustforge.attacks.gradient import check_settings, gradient_attack
from robustforge.attacks.surfaces import Surface
from robustforge.types import AttackResult, Threat


@dataclass(frozen=True)
class PGD:
    """Gradient steps from uniform random starts in the ball.

    Attributes:
        name: row name in records.
        steps: number of steps a restart.
        step_size: step in pixel units, or None for ``2.5 * eps / steps``.
        restarts: random starts; later ones attack only survivors.
        loss: ``cross_entropy`` or ``margin``.
        early_stop: stop an image at its first fooling iterate; False returns last iterates, as released code does.
        precision: ``auto``, ``float32`` or ``bf16``.

    Raises:
        UserError: settings under which it would do nothing.
    """

    name: str = "pgd"
    steps: int = 40
    step_size: float | None = None
    restarts: int = 1
    loss: str = "cross_entropy"
    early_stop: bool = True
    precision: str = "auto"

    def __post_init__(self) -> None:
        check_settings(self.name, self.loss, self.precision, self.steps, self.restarts, self.step_size)

    def __call__(
        self, surface: Surface, x: Tensor, y: Tensor, threat: Threat, *,
        index: Tensor | None = None, seed: int = 0, threshold: float | None = None,
    ) -> AttackResult:  # fmt: skip
        """See :class:`robustforge.attacks.base.Attack`."""
        step = 2.5 * threat.eps / self.steps if self.step_size is None else self.step_size
        return gradient_attack(
            surface, x, y, threat, name=self.name, steps=self.steps, step_size=step, restarts=self.restarts,
            index=index, seed=seed, loss=self.loss, early_stop=self.early_stop, precision=self.precision,
            threshold=threshold,
        )  # fmt: skip
