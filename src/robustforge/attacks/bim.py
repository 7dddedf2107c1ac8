"""BIM: iterated FGSM from the clean image (Kurakin et al. 2017, arXiv:1607.02533)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from robustforge.attacks.gradient import check_settings, gradient_attack
from robustforge.attacks.surfaces import Surface
from robustforge.types import AttackResult, Threat


@dataclass(frozen=True)
class BIM:
    """Gradient steps without a random start.

    Attributes:
        name: row name in records.
        steps: number of steps.
        step_size: step in pixel units, or None for ``relative_step * eps``.
        relative_step: step as a share of eps, used when ``step_size`` is None.
        loss: ``cross_entropy`` or ``margin``.
        early_stop: stop an image at its first fooling iterate.
        precision: ``auto``, ``float32`` or ``bf16``.

    Raises:
        UserError: settings under which it would do nothing.
    """

    name: str = "bim"
    steps: int = 10
    step_size: float | None = None
    relative_step: float = 0.25
    loss: str = "cross_entropy"
    early_stop: bool = True
    precision: str = "auto"

    def __post_init__(self) -> None:
        check_settings(self.name, self.loss, self.precision, self.steps, step_size=self.step_size)

    def __call__(
        self, surface: Surface, x: Tensor, y: Tensor, threat: Threat, *,
        index: Tensor | None = None, seed: int = 0, threshold: float | None = None,
    ) -> AttackResult:  # fmt: skip
        """See :class:`robustforge.attacks.base.Attack`."""
        step = self.relative_step * threat.eps if self.step_size is None else self.step_size
        return gradient_attack(
            surface, x, y, threat, name=self.name, steps=self.steps, step_size=step, random_init=False, index=index,
            seed=seed, loss=self.loss, early_stop=self.early_stop, precision=self.precision, threshold=threshold,
        )  # fmt: skip
