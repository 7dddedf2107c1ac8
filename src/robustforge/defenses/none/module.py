"""No defense: a plain classifier, the row every other row is compared with."""

from __future__ import annotations

from torch import Tensor, nn

from robustforge.defenses.base import Defense
from robustforge.defenses.stages import Factory, Stage, Training, build_seeded
from robustforge.defenses.undefended import plain_stage
from robustforge.ranges import Seed
from robustforge.types import DefenseOutput


class PlainClassifier(Defense):
    """Empirical risk minimization on clean images.

    Args:
        model: factory of the classifier, (B, C, H, W) in [0, 1] -> (B, K).
        training: how it is optimized.
        seed: of initial weights and batches.
    """

    def __init__(self, model: Factory, training: Training, seed: Seed = 0) -> None:
        super().__init__(seed=seed, training=training)
        self.undefended = build_seeded(model, seed, "undefended")

    def forward(self, x: Tensor) -> DefenseOutput:
        """(B, C, H, W) -> logits (B, K)."""
        return DefenseOutput(self.undefended(x))

    def classifier_network(self) -> nn.Module:
        """The classifier."""
        return self.undefended

    def stages(self) -> list[Stage]:
        """One stage, shared through the store with every defense that starts from the same classifier."""
        assert self.training_settings is not None
        return [plain_stage(self, training="training")]
