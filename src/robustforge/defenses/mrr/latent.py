"""Latent defenders: what one of them trains on, what pushes the next one elsewhere, and all of them as a detector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustforge.attacks.core.attack import BaseAttack
from robustforge.attacks.core.geometry import l2_norm, per_sample
from robustforge.attacks.core.session import AttackSession
from robustforge.attacks.core.surface import Surface
from robustforge.defenses.mrr.density import FeatureDensity
from robustforge.defenses.mrr.losses import long_text_regularizer, nearest_center_distance, released_regularizer
from robustforge.defenses.mrr.networks import Checkpoints
from robustforge.defenses.mrr.settings import LatentSettings
from robustforge.defenses.mrr.stacked_groups import stack_all
from robustforge.ranges import PositiveFloat, Precision
from robustforge.types import Batch, DefenseOutput, UserError


class LatentDefender(nn.Module):
    """A network beside the victim and learnable class centers for each of its checkpointed layers.

    Args:
        network: (B, C, H, W) -> logits (B, K).
        layers: see :class:`robustforge.defenses.mrr.networks.Checkpoints`.
        pool: likewise.
        shape: (C, H, W) of the images.
        num_classes: K.
    """

    def __init__(
        self, network: nn.Module, layers: Sequence[str], pool: int, shape: Sequence[int], num_classes: int
    ) -> None:
        super().__init__()
        self.checkpoints = Checkpoints(network, layers, pool)
        self.sizes = self.checkpoints.sizes(shape)
        starts = [F.normalize(torch.randn(num_classes, size), dim=1) for size in self.sizes]
        self.centers = nn.ParameterList([nn.Parameter(start) for start in starts])

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(B, C, H, W) -> (logits (B, K), unit-length features (B, D), one a layer)."""
        logits, features = self.checkpoints(x)
        return logits, features

    @torch.no_grad()
    def start_from(self, victim: nn.Module) -> None:
        """Copies the victim's weights."""
        self.checkpoints.network.load_state_dict(victim.state_dict())

    def losses(self, settings: LatentSettings, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy and the weighted regularizer of every layer, of the pushed images where there are any."""
        y = batch.y
        logits, features = self(batch.x if batch.x_adv is None else batch.x_adv)
        terms = {"classification": F.cross_entropy(logits, y)}
        for layer, phi, centers in zip(self.checkpoints.layers, features, self.centers, strict=True):
            if settings.regularizer == "released":
                parts = released_regularizer(phi, centers, y, settings.pull_reduction)
            else:
                parts = long_text_regularizer(phi, centers, y)
            prefix = "" if len(features) == 1 else f"{layer}_"
            terms |= {prefix + name: settings.gamma * value for name, value in parts.items()}
        return terms

    def away(self, x: Tensor) -> DefenseOutput:
        """Logits, and as risk (B,) the squared distance to the nearest center, summed over layers."""
        logits, features = self(x)
        pairs = zip(features, self.centers, strict=True)
        return DefenseOutput(logits, torch.stack([nearest_center_distance(phi, c) for phi, c in pairs]).sum(0))

    def metrics(self, batch: Batch) -> dict[str, Tensor]:
        """Accuracy (B,) and the squared distance to the nearest center, summed over layers."""
        output = self.away(batch.x)
        assert output.risk is not None
        return {"accuracy": (output.logits.argmax(1) == batch.y).float(), "center_distance": output.risk}

    def surface(self) -> Surface:
        """What :class:`PushAway` differentiates."""
        return Surface("centers", lambda x, _: (self(x)[0],), lambda x, _: self.away(x), self)


@dataclass(frozen=True)
class PushAway(BaseAttack):
    """One gradient step that raises the surface's risk: training images for the next defender (released code).

    Attributes:
        mode: ``normalized`` (L2 length ``step``) or ``raw`` (gradient times ``step``: no sign, no normalization).
        step: pixel units for ``normalized``.
    """

    name: str = "push_away"
    precision: Precision = "float32"
    mode: Literal["normalized", "raw"] = "normalized"
    step: PositiveFloat = 0.5

    def perturb(self, session: AttackSession, seed: int) -> Tensor:
        """See :class:`robustforge.attacks.core.attack.BaseAttack`."""
        rows = session.everyone()

        def function(leaf: Tensor) -> tuple[list[Tensor], Tensor]:
            output = session.surface.system(leaf, session.y)
            assert output.risk is not None
            return [output.risk], output.logits

        (gradient,), _, _ = session.differentiate(session.x, rows, function)
        if self.mode == "normalized":
            gradient = gradient / per_sample(l2_norm(gradient).clamp_min(1e-12), gradient)
        return (session.x + self.step * gradient).clamp(0, 1)


class LatentDetector(nn.Module):
    """All defenders in one batched pass, and the density of their features.

    Args:
        defenders: N > 0, whose weights are copied by :meth:`load`.
        num_classes: K.
        settings: density, components and disagreement.

    Raises:
        UserError: defenders whose features have different lengths.
    """

    def __init__(self, defenders: Sequence[LatentDefender], num_classes: int, settings: LatentSettings) -> None:
        super().__init__()
        if len({tuple(defender.sizes) for defender in defenders}) > 1:
            raise UserError(
                "The checkpointed features of the defenders have different lengths: choose defense.latent.variants "
                "that leave the checkpointed layers (defense.latent.layers) as they are."
            )
        self.disagreement = settings.disagreement
        self.stack = stack_all([defender.checkpoints for defender in defenders])
        self.densities = nn.ModuleList(
            FeatureDensity(len(defenders), num_classes, size, settings.components, settings.density)
            for size in defenders[0].sizes
        )

    def load(self, defenders: Sequence[LatentDefender]) -> None:
        """Copies the defenders' networks."""
        self.stack.load([defender.checkpoints for defender in defenders])

    def features(self, x: Tensor) -> list[Tensor]:
        """(B, C, H, W) -> (N, B, D) of unit length, one a layer."""
        features: list[Tensor] = self.stack(x)[1]
        return features

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        """(B, N * scores) scores of images as classes ``label`` (B,): layer by layer, then disagreement.

        A layer's is the density's of the class; disagreement is the cross-entropy of the label, in nats.
        """
        logits, features = self.stack(x)
        pairs = zip(self.densities, features, strict=True)
        scores = [density(feature, label) for density, feature in pairs]
        if self.disagreement:
            chosen = label.expand(len(logits), -1)[..., None]
            scores.append(-logits.float().log_softmax(2).gather(2, chosen).squeeze(2))
        return torch.cat(scores).T
