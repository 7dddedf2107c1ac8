"""DFL + PCL as a LightningModule: which networks, which stages, which losses."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robustforge.attacks.core.attack import Attack
from robustforge.attacks.core.surface import Surface, end_to_end
from robustforge.attacks.none import NoAttack
from robustforge.defenses.base import Defense, classify
from robustforge.defenses.dfl_pcl.centroids import ClassMeans, FeatureSpace
from robustforge.defenses.dfl_pcl.feature_losses import FeatureLoss
from robustforge.defenses.dfl_pcl.figures import dfl_pcl_figures, geometry_numbers
from robustforge.defenses.dfl_pcl.networks import DefensiveFeatureNetwork
from robustforge.defenses.dfl_pcl.objective import Objective
from robustforge.defenses.dfl_pcl.surfaces import dfl_pcl_surfaces
from robustforge.defenses.figures import Figure
from robustforge.defenses.single_step import accuracy_under
from robustforge.defenses.stages import Factory, FitStage, Stage, Training, build_seeded, check_average
from robustforge.defenses.undefended import plain_stage
from robustforge.nn.staged import Staged
from robustforge.ranges import Classes, NonNegativeFloat, OpenShare, PositiveInt, Seed, Shape, ShareBelowOne
from robustforge.types import Batch, DefenseOutput, Threat, UserError

_OF_NETWORK = (  # all arguments but how the undefended classifier is trained
    *("model", "shape", "num_classes", "attack", "threat", "feature_loss", "training", "dfl", "dfl_channels"),
    *("pool_size", "clean_weight", "keep_best", "average", "warm_start", "tie_centroids", "trades"),
)


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
        keep_best: keep the epoch of the highest robust accuracy on held-out images (clean accuracy without an attack;
            under PGD-10 where the attack makes one step, which training may overfit).
        average: decay of a running average of the weights, or None.
        warm_start: start the stages from the undefended classifier's (Mustafa's code trains cross-entropy first).
        tie_centroids: the centroids are the head's rows and no parameters of their own; the paper's "center of their
            class's weight" allows both readings.
        trades: weight of the divergence from clean to attacked answers (TRADES' beta) in place of the cross-entropy on
            attacked images; 0: cross-entropy on both halves.
        seed: of initial weights, batches and attacks.

    Raises:
        UserError: ``tie_centroids`` without a feature loss, or ``trades`` without an attack or with a share of the
            halves other than one half.
    """

    def __init__(
        self,
        model: Factory,
        shape: Shape,
        num_classes: Classes,
        attack: Attack,
        threat: Threat,
        feature_loss: FeatureLoss | None,
        training: Training,
        undefended_training: Training,
        dfl: bool = True,
        dfl_channels: PositiveInt | None = None,
        pool_size: PositiveInt = 1,
        clean_weight: ShareBelowOne = 0.5,
        keep_best: bool = True,
        average: OpenShare | None = None,
        warm_start: bool = False,
        tie_centroids: bool = False,
        trades: NonNegativeFloat = 0.0,
        seed: Seed = 0,
    ) -> None:
        super().__init__(seed=seed, training=training)
        self.attack = None if isinstance(attack, NoAttack) else attack
        check_average(average)
        _check(self.attack, feature_loss, clean_weight, tie_centroids, trades)
        self.threat, self.feature_loss, self.clean_weight = threat, feature_loss, clean_weight
        self.keep_best, self.average, self.warm_start = keep_best, average, warm_start
        self.undefended_training, self.tie_centroids, self.trades = undefended_training, tie_centroids, trades
        self.undefended = build_seeded(model, seed, "undefended")
        self.network = network = build_seeded(
            lambda: DefensiveFeatureNetwork(model(), shape, num_classes, dfl, dfl_channels, pool_size), seed, "network"
        )
        self.class_means = ClassMeans(num_classes, [*network.widths, network.dim])
        if feature_loss is not None:
            self.points = build_seeded(lambda: feature_loss.points(num_classes, network.dim), seed, "points")
            if tie_centroids:
                del self.points["centroids"]

    # ---- inference --------------------------------------------------------------------------------------------------

    def forward(self, x: Tensor) -> DefenseOutput:
        """(B, C, H, W) in [0, 1] -> logits (B, K)."""
        return DefenseOutput(self.network(x))

    def classifier_network(self) -> nn.Module:
        """Backbone, Defensive Feature Layer and head."""
        return self.network

    def surfaces(self) -> dict[str, Surface]:
        """``end_to_end`` and the adapted ones: see the module of that name."""
        return dfl_pcl_surfaces(self, self.space, self.class_means, self.undefended)

    def systems(self) -> dict[str, dict[str, Surface]]:
        """The undefended classifier beside the defense."""
        return {"undefended": classify(self.undefended)}

    def figures(self) -> dict[str, Figure]:
        """The geometry of the classes: see the module of that name."""
        return dfl_pcl_figures(self.space, self.surfaces()["end_to_end"])

    @property
    def space(self) -> FeatureSpace:
        """The features, and the centroids that they are pulled to."""
        if self.feature_loss is None:
            return FeatureSpace(self.network, None, normalized=False)
        centroids = self.loss_points.get_parameter("centroids.weight")
        return FeatureSpace(self.network, centroids, self.feature_loss.normalized)

    @property
    def loss_points(self) -> nn.ModuleDict:
        """The points of the feature loss, the head's rows among them where they are its centroids."""
        tied = {"centroids": self.network.classifier} if self.tie_centroids else {}
        return nn.ModuleDict({**self.points, **tied})

    # ---- training ---------------------------------------------------------------------------------------------------

    def stages(self) -> list[Stage]:
        """The undefended backbone, then the defended network with its centroids."""
        assert self.training_settings is not None
        metric = "accuracy" if self.attack is None else accuracy_under(self.attack)
        rates = {} if self.feature_loss is None else self.feature_loss.rates
        network = FitStage(
            "network",
            ("network", "class_means", *(["points"] if self.feature_loss and len(self.points) else [])),
            self.losses,
            self.training_settings,
            uses=("undefended",) if self.warm_start else (),
            validate=self.validate,
            prepare=self._copy_stages if self.warm_start else None,
            best=metric if self.keep_best else None,
            average=self.average,
            rates={f"points.{name}": rate for name, rate in rates.items() if name in self.points},
            takes=_OF_NETWORK,
        )
        return [plain_stage(self), network]

    def _copy_stages(self) -> None:
        assert isinstance(self.undefended, Staged), "the network, made of the same model, refuses any other"
        self.network.stages.load_state_dict(nn.ModuleList(self.undefended.split().stages).state_dict())

    @property
    def objective(self) -> Objective:
        """The loss of the defended network."""
        loss, surface = self.feature_loss, end_to_end(self, self.network)
        points, trained = None if loss is None else self.loss_points, (self.attack, self.threat, self.clean_weight)
        return Objective(self.network, surface, *trained, loss, points, self.class_means, self.trades)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Eq. 5 on the clean and the attacked half of the batch."""
        terms, noted = self.objective.terms(batch, self.attack_seed())
        self.note(**noted)
        return terms

    def validate(self, batch: Batch) -> dict[str, Tensor]:
        """Held-out clean and robust accuracy and cross-entropy, and the geometry of the features."""
        return {**self.objective.metrics(batch, self.seed), **self.diagnostics(batch)}

    @torch.no_grad()
    def diagnostics(self, batch: Batch) -> dict[str, Tensor]:
        """The geometry of the features: see :func:`geometry_numbers`."""
        return geometry_numbers(self.space, batch)


def _check(
    attack: Attack | None, feature_loss: FeatureLoss | None, clean_weight: float, tied: bool, trades: float
) -> None:
    if not 0 <= clean_weight < 1:
        raise UserError(f"defense.clean_weight is {clean_weight}: give a share of at least 0 and below 1.")
    if tied and feature_loss is None:
        raise UserError("defense.tie_centroids needs a loss with centroids: set it to false, or give feature_loss.")
    if trades and (attack is None or clean_weight != 0.5):
        raise UserError("defense.trades needs attacked images: give inner=pgd, and leave clean_weight at 0.5.")
