"""Modular robust redundancy as deployed: the victim's label, and the defenders' risk for it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robustforge.defenses.mrr.fusion import LeakedRates, RiskFusion
from robustforge.defenses.mrr.latent import LatentDetector
from robustforge.defenses.mrr.sparse_coding import ClassDictionaries
from robustforge.types import Batch, DefenseOutput


@dataclass(frozen=True)
class Redundancy:
    """The victim and the parts that watch it, each None where there is none of it.

    Attributes:
        victim: (B, C, H, W) -> logits (B, K).
        latent: all latent defenders.
        dictionaries: the input defender.
        fusion: of all scores; None without any defender.
        leak: weights of the fusion ``noisy_or_leaky``.
    """

    victim: nn.Module
    latent: LatentDetector | None
    dictionaries: ClassDictionaries | None
    fusion: RiskFusion | None
    leak: LeakedRates | None

    @property
    def count(self) -> int:
        """J, number of scores."""
        return 0 if self.fusion is None else len(self.fusion.mean)

    def respond(
        self, x: Tensor, label: Tensor | None = None, logits: Tensor | None = None, *, smooth: bool = False
    ) -> DefenseOutput:
        """The system's answer; ``label`` (B,) is what the defenders judge, by default the answer of the ``logits``.

        ``smooth`` gives the risk a gradient that does not vanish: see :class:`RiskFusion`.
        """
        logits = self.victim(x) if logits is None else logits
        if self.fusion is None:
            return DefenseOutput(logits)
        label = logits.argmax(1) if label is None else label
        leaked = None if self.leak is None else self.leak.rates
        risk, detector_scores = self.fusion(self.scores(x, label), label, leaked, smooth=smooth)
        return DefenseOutput(logits, risk, None, detector_scores)

    def scores(self, x: Tensor, label: Tensor) -> Tensor:
        """(B, J) float32: how unlikely images (B, C, H, W) are as classes ``label`` (B,), latent defenders first."""
        found = [] if self.latent is None else [self.latent(x, label)]
        found += [] if self.dictionaries is None else [self.dictionaries(x, label)[:, None]]
        return torch.cat(found, 1)

    def judged(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(predicted classes (B,), scores (B, J) for them)."""
        label = self.victim(x).argmax(1)
        return label, self.scores(x, label)

    def excess(self, x: Tensor, label: Tensor, literal: bool = False) -> Tensor:
        """(B, J) how far each score for classes ``label`` (B,) lies above its SP threshold.

        In standard deviations, or with ``literal`` in units of the score.
        """
        assert self.fusion is not None
        scores = self.scores(x, label)
        if not literal:
            return self.fusion.excess(scores, label)
        thresholds: Tensor = self.fusion.cdf.thresholds(self.fusion.settings.security_parameter)
        return scores - thresholds[:, label].T

    def numbers(self, batch: Batch) -> dict[str, Tensor]:
        """False alarms at SP on clean images, of one defender (mean) and of any; correlation of the scores.

        Returns:
            (B,) each: ``flagged_by_one``, ``flagged_by_any``, and with several defenders ``score_correlation``, whose
            mean over images is the mean correlation of two different defenders' scores around their held-out means.
        """
        if self.fusion is None:
            return {}
        label, scores = self.judged(batch.x)
        flags = self.fusion.excess(scores, label) > 0
        found = {"flagged_by_one": flags.float().mean(1), "flagged_by_any": flags.any(1).float()}
        if self.count > 1:
            z = (scores - self.fusion.mean) / self.fusion.std
            pairs = z.sum(1).square() - z.square().sum(1)  # sum over ordered pairs of different defenders
            found["score_correlation"] = pairs / (self.count * (self.count - 1))
        return found
