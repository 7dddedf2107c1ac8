"""DFL + PCL as a LightningModule: which networks, which stages, which losses."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustforge.attacks.core.attack import Attack
from robustforge.attacks.core.surface import Surface, end_to_end
from robustforge.attacks.none import NoAttack
from robustforge.defenses.base import Defense, classify
from robustforge.defenses.dfl_pcl.centroids import ClassMeans
from robustforge.defenses.dfl_pcl.feature_losses import FeatureLoss
from robustforge.defenses.dfl_pcl.figures import geometry_figures
from robustforge.defenses.dfl_pcl.networks import DefensiveFeatureNetwork
from robustforge.defenses.dfl_pcl.surfaces import depths, dfl_pcl_surfaces
from robustforge.defenses.stages import (
    Factory,
    FitStage,
    Stage,
    Training,
    build_seeded,
    check_average,
)
from robustforge.defenses.undefended import plain_stage
from robustforge.losses.classification import cross_entropy_per_sample
from robustforge.types import AttackResult, Batch, DefenseOutput, Threat, UserError

_OF_NETWORK = (
    "model",
    "shape",
    "num_classes",
    "attack",
    "threat",
    "feature_loss",
    "training",
    "dfl",
    "dfl_channels",
    "pool_size",
    "clean_weight",
    "keep_best",
    "average",
    "warm_start",
)  # all arguments but how the undefended classifier is trained


class DflPcl(Defense):
    """A staged backbone with the Defensive Feature Layer, trained with a loss on its features, adversarially or not.

    Args:
        model: factory of the backbone, which must have stages.
        shape: (C, H, W) of the images.
        num_classes: K.
        attack: makes the training examples by the logits' gradient; ``NoAttack`` trains on clean images only, which is
            what the paper's "No Defense" rows mean.
        threat: training budget.
        feature_loss: added to cross-entropy (Eq. 5), or None for cross-entropy alone.
        training: optimization of the defended network.
        undefended_training: optimization of the plain backbone, shown beside it.
        dfl, dfl_channels, pool_size: see :class:`DefensiveFeatureNetwork`.
        clean_weight: share of the clean half of the batch; 0.5 is 64 clean and 64 attacked images alike, 0 the attacked
            ones only.
        keep_best: keep the epoch of the highest robust accuracy on held-out images (clean accuracy without an attack).
        average: decay of a running average of the weights, or None.
        warm_start: start the stages from the undefended classifier's (Mustafa's code trains cross-entropy first).
        seed: of initial weights, batches and attacks.

    Notes:
        Batch normalisation: the attack sees the running statistics (the engine puts the network in eval mode), as an
        attacker of the deployed network does. The training pass normalises the clean and the attacked half together,
        once, so that the running statistics are of that mixture; attacked test images then meet the statistics that
        they were trained with. The feature loss sees both halves. The paper says nothing about either.
    """

    def __init__(
        self,
        model: Factory,
        shape: Sequence[int],
        num_classes: int,
        attack: Attack,
        threat: Threat,
        feature_loss: FeatureLoss | None,
        training: Training,
        undefended_training: Training,
        dfl: bool = True,
        dfl_channels: int | None = None,
        pool_size: int = 1,
        clean_weight: float = 0.5,
        keep_best: bool = True,
        average: float | None = None,
        warm_start: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__(seed=seed, training=training)
        if not 0 <= clean_weight < 1:
            raise UserError(f"defense.clean_weight is {clean_weight}: give a share of at least 0 and below 1.")
        check_average(average)
        self.attack = None if isinstance(attack, NoAttack) else attack
        self.threat, self.feature_loss, self.clean_weight = threat, feature_loss, clean_weight
        self.keep_best, self.average, self.warm_start = keep_best, average, warm_start
        self.undefended_training = undefended_training
        self.network_description = {"dfl": dfl, "dfl_channels": dfl_channels, "pool_size": pool_size}
        self.undefended = build_seeded(model, seed, "undefended")
        network = build_seeded(
            lambda: DefensiveFeatureNetwork(model(), shape, num_classes, **self.network_description), seed, "network"
        )
        assert isinstance(network, DefensiveFeatureNetwork)
        self.network = network
        self.class_means = ClassMeans(num_classes, [*network.widths, network.dim])
        if feature_loss is not None:
            self.points = build_seeded(lambda: feature_loss.points(num_classes, network.dim), seed, "points")

    # ---- inference --------------------------------------------------------------------------------------------------

    def forward(self, x: Tensor) -> DefenseOutput:
        """(B, C, H, W) in [0, 1] -> logits (B, K)."""
        return DefenseOutput(self.network(x))

    def classifier_network(self) -> nn.Module:
        """Backbone, Defensive Feature Layer and head."""
        return self.network

    def surfaces(self) -> dict[str, Surface]:
        """``end_to_end`` and the adapted ones: see the module of that name."""
        return dfl_pcl_surfaces(self)

    def systems(self) -> dict[str, dict[str, Surface]]:
        """The undefended classifier beside the defense."""
        return {"undefended": classify(self.undefended)}

    def embed(self, x: Tensor) -> Tensor:
        """Features (B, d), on the unit sphere where the loss compares them there."""
        features: Tensor = self.network.respond(x).features.float()
        return F.normalize(features, dim=1) if self._on_sphere else features

    def anchors(self) -> Tensor | None:
        """The centroids that features are pulled to, (K, d)."""
        if self.feature_loss is None:
            return None
        points: Tensor = self.points["centroids"].weight
        return F.normalize(points, dim=1) if self._on_sphere else points

    @property
    def _on_sphere(self) -> bool:
        return self.feature_loss is not None and self.feature_loss.normalised

    # ---- training ---------------------------------------------------------------------------------------------------

    def stages(self) -> list[Stage]:
        """The undefended backbone, then the defended network with its centroids."""
        assert self.training_settings is not None
        metric = "accuracy" if self.attack is None else "robust_accuracy"
        rates = {} if self.feature_loss is None else self.feature_loss.rates
        network = FitStage(
            "network",
            ("network", "class_means", *(["points"] if self.feature_loss else [])),
            self.losses,
            self.training_settings,
            uses=("undefended",) if self.warm_start else (),
            validate=self.validate,
            prepare=self._copy_stages if self.warm_start else None,
            best=metric if self.keep_best else None,
            average=self.average,
            rates={f"points.{name}": rate for name, rate in rates.items()},
            takes=_OF_NETWORK,
        )
        return [plain_stage(self), network]

    def _copy_stages(self) -> None:
        self.network.stages.load_state_dict(nn.ModuleList(self.undefended.split().stages).state_dict())

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Eq. 5 on the clean and the attacked half of the batch."""
        halves = self._halves(batch)
        y, count = batch.y.repeat(len(halves)), len(batch.y)
        output = self.network.respond(torch.cat([images for images, _ in halves.values()]))
        logits, features = output.logits.float(), output.features.float()
        terms, noted = {}, {}
        entropy, right = cross_entropy_per_sample(logits, y), (logits.argmax(1) == y).float()
        for number, (name, (_, weight)) in enumerate(halves.items()):
            rows = slice(number * count, (number + 1) * count)
            terms[name] = weight * entropy[rows].mean()
            noted |= {f"{name}_accuracy": right[rows].mean(), f"{name}_loss": entropy[rows].mean()}
        if self.feature_loss is not None:
            weights = torch.tensor([weight for _, weight in halves.values()], device=y.device)
            shares = len(halves) * weights.repeat_interleave(count)
            terms |= self.feature_loss.terms(features, self.points, y, shares)
        # the first half: clean images where there are any
        self.class_means.update([depth[:count] for depth in depths(output)], batch.y)
        self.note(feature_norm=features.norm(dim=1).mean(), **noted)
        return terms

    def _halves(self, batch: Batch) -> dict[str, tuple[Tensor, float]]:
        """Images and weight of each part of the training batch, the clean one first."""
        if self.attack is None:
            return {"clean": (batch.x, 1.0)}
        attacked = {"adversarial": (self._attack(batch, self.attack_seed()).x_adv, 1 - self.clean_weight)}
        return {"clean": (batch.x, self.clean_weight), **attacked} if self.clean_weight else attacked

    def _attack(self, batch: Batch, seed: int) -> AttackResult:
        """The training attack on the network as it stands, with no gradient to its weights."""
        assert self.attack is not None
        surface = end_to_end(self, self.network)
        return self.attack(surface, batch.x, batch.y, self.threat, index=batch.index, seed=seed)

    def validate(self, batch: Batch) -> dict[str, Tensor]:
        """Held-out clean and robust accuracy and cross-entropy, and the geometry of the features."""
        clean, entropy = self._answer(batch.x, batch.y)
        metrics = {"accuracy": clean.float(), "loss": entropy, **self.diagnostics(batch)}
        if self.attack is not None:
            result = self._attack(batch, self.seed)
            metrics["robust_accuracy"] = (clean & ~result.success).float()
            metrics["robust_loss"] = self._answer(result.x_adv, batch.y)[1]
        return metrics

    @torch.no_grad()
    def _answer(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """((B,) whether right, (B,) cross-entropy)."""
        logits = self.network(x).float()
        return logits.argmax(1) == y, cross_entropy_per_sample(logits, y)

    @torch.no_grad()
    def diagnostics(self, batch: Batch) -> dict[str, Tensor]:
        """The geometry of the features: see :func:`geometry_figures`."""
        norm = self.network.respond(batch.x).features.float().norm(dim=1)
        points = self.anchors()
        figures = {} if points is None else geometry_figures(self.embed(batch.x), points, batch.y)
        return {"feature_norm": norm, **figures}
