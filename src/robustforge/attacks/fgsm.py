"""FGSM: one signed gradient step of length eps from the clean image (Goodfellow et al. 2015, arXiv:1412.6572)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from robustforge.attacks.gradient import check_settings, gradient_attack
from robustforge.attacks.surfaces import Surface
from robustforge.types import AttackResult, Threat


@dataclass(frozen=True)
class FGSM:
    """One step of length eps along the true label's loss gradient; the normalised gradient for L2.

    Attributes:
        name: row name in records.
        loss: ``cross_entropy`` or ``margin``.
        early_stop: leave images alone that are misclassified already.
        precision: ``auto``, ``float32`` or ``bf16``.

    Raises:
        UserError: settings under which it would do nothing.
    """

    name: str = "fgsm"
    loss: str = "cross_entropy"
    early_stop: bool = True
    precision: str = "auto"

    def __post_init__(self) -> None:
        check_settings(self.name, self.loss, self.precision)

    def __call__(
        self, surface: Surface, x: Tensor, y: Tensor, threat: Threat, *,
        index: Tensor | None = None, seed: int = 0, threshold: float | None = None,
    ) -> AttackResult:  # fmt: skip
        """See :class:`robustforge.attacks.base.Attack`."""
        return gradient_attack(
            surface, x, y, threat, name=self.name, steps=1, step_size=threat.eps, random_init=False, index=index,
            seed=seed, loss=self.loss, early_stop=self.early_stop, precision=self.precision, threshold=threshold,
        )  # fmt: skip
