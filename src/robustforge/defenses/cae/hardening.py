"""A denoiser that goes on training on attacks through the whole system (ours; the paper never attacks the denoiser)."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor, nn

from robustforge.defenses.cae.networks import Denoiser
from robustforge.defenses.robust_loss import AdversarialLoss, robust_metrics
from robustforge.defenses.stages import FitStage, Training
from robustforge.types import Batch


class Hardenable(Protocol):
    """A denoiser before a classifier.

    Attributes:
        denoiser: trained on stored attacks, (B, C, H, W) -> (B, C, H, W).
        hardened: of the same kind; trained here.
        undefended: the classifier, (B, C, H, W) -> (B, K), which stays as it is.
        hardening_training: how ``hardened`` is optimized.
        seed: of the attacks on held-out images.
    """

    denoiser: Denoiser
    hardened: Denoiser
    undefended: nn.Module
    hardening_training: Training | None
    seed: int

    def attack_seed(self) -> int:
        """Of the attacks in this epoch."""
        ...


def hardening_stage(defense: Hardenable, robust: AdversarialLoss) -> FitStage:
    """Fits a copy of the denoiser to a robust loss of the whole system, and keeps its best epoch.

    Args:
        defense: whose denoiser it is.
        robust: loss and attack; the attack goes through denoiser and classifier.

    Notes:
        The classifier is frozen: what robustness there is afterwards, the denoiser has learned. Latent noise is left
        out, in training as in the attack.
    """
    assert defense.hardening_training is not None
    system = nn.Sequential(defense.hardened, defense.undefended)

    def losses(batch: Batch) -> dict[str, Tensor]:
        return robust.terms(system, batch, defense.attack_seed())

    return FitStage(
        "hardened",
        ("hardened",),
        losses,
        defense.hardening_training,
        uses=("undefended", "denoiser"),
        validate=lambda batch: robust_metrics(system, batch, robust, defense.seed),
        prepare=lambda: _copy(defense),
        best=robust.best,
        takes=("hardening", "hardening_training"),
    )


def _copy(defense: Hardenable) -> None:
    defense.hardened.load_state_dict(defense.denoiser.state_dict())
