"""What DFL + PCL is trained on: cross-entropy and a loss on the features of clean and attacked images (Eq. 5)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robustforge.attacks.core.attack import Attack
from robustforge.attacks.core.surface import Surface
from robustforge.defenses.dfl_pcl.centroids import ClassMeans
from robustforge.defenses.dfl_pcl.feature_losses import FeatureLoss
from robustforge.defenses.dfl_pcl.networks import DefensiveFeatureNetwork
from robustforge.defenses.dfl_pcl.surfaces import depths
from robustforge.defenses.robust_loss import trades_examples
from robustforge.defenses.single_step import stands_under_pgd, takes_one_step
from robustforge.losses.classification import cross_entropy_per_sample
from robustforge.losses.robust import trades_kl
from robustforge.types import Batch, Threat


@dataclass(frozen=True)
class Objective:
    """The loss of one batch and what is measured of it on held-out images.

    Attributes:
        network: trained.
        surface: the network as the training attack sees it.
        attack: makes the attacked images; None trains on clean images only.
        threat: its budget.
        clean_weight: share of the clean half in the cross-entropy.
        feature_loss: added to it, or None.
        points: of the feature loss, or None.
        class_means: kept of the clean images' features (of the attacked ones where there are no others).
        trades: weight of TRADES' divergence, whose examples the attack's steps then make; 0: cross-entropy on both
            halves.

    Notes:
        Batch normalization: the attack sees the running statistics (the engine puts the network in eval mode), as an
        attacker of the deployed network does. The training pass normalizes the clean and the attacked half together,
        once, so that the running statistics are of that mixture; attacked test images then meet the statistics that
        they were trained with. The feature loss sees both halves. The paper says nothing about either.
    """

    network: DefensiveFeatureNetwork
    surface: Surface
    attack: Attack | None
    threat: Threat
    clean_weight: float
    feature_loss: FeatureLoss | None
    points: nn.ModuleDict | None
    class_means: ClassMeans
    trades: float = 0.0

    def terms(self, batch: Batch, seed: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """(weighted loss terms, scalars to log beside them) of one training batch; ``seed`` is the attack's."""
        halves = self._halves(batch, seed)
        y, count = batch.y.repeat(len(halves)), len(batch.y)
        output = self.network.respond(torch.cat([images for images, _ in halves.values()]))
        logits, features = output.logits.float(), output.features.float()
        terms: dict[str, Tensor] = {}
        noted = {"feature_norm": features.norm(dim=1).mean()}
        entropy, right = cross_entropy_per_sample(logits, y), (logits.argmax(1) == y).float()
        if self.trades:
            clean, attacked = logits.chunk(2)
            terms |= {"clean": entropy[:count].mean(), "divergence": self.trades * trades_kl(attacked, clean).mean()}
        for number, (name, (_, weight)) in enumerate(halves.items()):
            rows = slice(number * count, (number + 1) * count)
            if not self.trades:
                terms[name] = weight * entropy[rows].mean()
            noted |= {f"{name}_accuracy": right[rows].mean(), f"{name}_loss": entropy[rows].mean()}
        if self.feature_loss is not None and self.points is not None:
            weights = torch.tensor([weight for _, weight in halves.values()], device=y.device)
            shares = len(halves) * weights.repeat_interleave(count)
            terms |= self.feature_loss.terms(features, self.points, y, shares)
        self.class_means.update([depth[:count] for depth in depths(output)], batch.y)
        return terms, noted

    def metrics(self, batch: Batch, seed: int) -> dict[str, Tensor]:
        """Clean and robust accuracy and cross-entropy (B,); under PGD-10 (n,) too where training makes one step."""
        clean, entropy = self._answer(batch.x, batch.y)
        if self.attack is None:
            return {"accuracy": clean.float(), "loss": entropy}
        result = self.attack(self.surface, batch.x, batch.y, self.threat, index=batch.index, seed=seed)
        one_step = takes_one_step(self.attack)
        pgd = {"pgd_accuracy": stands_under_pgd(self.surface, batch, self.threat, seed)} if one_step else {}
        return {
            **pgd,
            "accuracy": clean.float(),
            "loss": entropy,
            "robust_accuracy": (clean & ~result.success).float(),
            "robust_loss": self._answer(result.x_adv, batch.y)[1],
        }

    def _halves(self, batch: Batch, seed: int) -> dict[str, tuple[Tensor, float]]:
        """Images and weight of each part of the training batch, the clean one first."""
        if self.attack is None:
            return {"clean": (batch.x, 1.0)}
        x_adv = (
            trades_examples(self.network, batch, self.attack, self.threat, seed)
            if self.trades
            else self.attack.examples(self.surface, batch.x, batch.y, self.threat, index=batch.index, seed=seed)
        )
        attacked = {"adversarial": (x_adv, 1 - self.clean_weight)}
        return {"clean": (batch.x, self.clean_weight), **attacked} if self.clean_weight else attacked

    @torch.no_grad()
    def _answer(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """((B,) whether right, (B,) cross-entropy)."""
        logits = self.network(x).float()
        return logits.argmax(1) == y, cross_entropy_per_sample(logits, y)
