"""Losses on features with points of their own, as settings that build those points and weigh the terms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from torch import Tensor, nn

from robustforge.defenses.dfl_pcl.centroids import Centroids
from robustforge.defenses.dfl_pcl.losses import polarized_contrastive_terms
from robustforge.defenses.dfl_pcl.prototype_conformity import prototype_conformity_terms
from robustforge.hints import check_fields
from robustforge.ranges import NonNegativeFloat


class FeatureLoss(Protocol):
    """What a loss on features offers.

    Attributes:
        normalized: whether it compares features and centroids on the unit sphere.
        rates: factors on the learning rate of its points, by attribute name.
    """

    @property
    def normalized(self) -> bool: ...  # noqa: D102

    @property
    def rates(self) -> Mapping[str, float]: ...  # noqa: D102

    def points(self, num_classes: int, dim: int) -> nn.ModuleDict:
        """Its learnable points; ``centroids`` are those that features are pulled to."""
        ...

    def terms(self, features: Tensor, points: nn.ModuleDict, y: Tensor, shares: Tensor) -> dict[str, Tensor]:
        """Weighted scalar terms.

        Args:
            features: (B, d).
            points: of this loss.
            y: (B,) labels.
            shares: (B,) weights of the samples, 1 on average.
        """
        ...


@dataclass(frozen=True)
class PolarizedContrastive:
    """Polarized Contrastive Loss; see :func:`polarized_contrastive_terms` for the modes.

    Attributes:
        mode: ``signed_normalized``, ``signed_raw`` or ``paper_literal``.
        intra: weight of the distance to the own centroid, lambda_a.
        inter: weight of the distances to the others, lambda_e.
        angle: weight of the angles between centroids (the paper has one weight for both).
        margin: of the hinge in ``signed_raw``.
        rates: factors on the centroids' learning rate.

    Raises:
        UserError: unknown mode or a negative weight.

    Notes:
        The paper has neither weights nor a mean over the batch: ``paper_literal`` sums over the batch, the others
        average.
    """

    mode: Literal["signed_normalized", "signed_raw", "paper_literal"] = "signed_normalized"
    intra: NonNegativeFloat = 1.0
    inter: NonNegativeFloat = 1.0
    angle: NonNegativeFloat = 1.0
    margin: NonNegativeFloat = 10.0
    rates: Mapping[str, NonNegativeFloat] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def normalized(self) -> bool:
        """Whether features and centroids are compared on the unit sphere."""
        return self.mode == "signed_normalized"

    def points(self, num_classes: int, dim: int) -> nn.ModuleDict:
        """One centroid a class, on the unit sphere at first."""
        return nn.ModuleDict({"centroids": Centroids(num_classes, dim)})

    def terms(self, features: Tensor, points: nn.ModuleDict, y: Tensor, shares: Tensor) -> dict[str, Tensor]:
        """``intra``, ``inter``, ``angle``."""
        weights = {"intra": self.intra, "inter": self.inter, "angle": self.angle}
        centroids = points.get_parameter("centroids.weight")
        values = polarized_contrastive_terms(features, centroids, y, self.mode, self.margin)
        total = len(y) if self.mode == "paper_literal" else 1
        return {name: weights[name] * total * (shares * value).mean() for name, value in values.items()}


@dataclass(frozen=True)
class PrototypeConformity:
    """Prototype Conformity Loss of Mustafa et al. (2019), with the released code's weights.

    Attributes:
        proximity: weight of the squared distance to the own prototype, w_p.
        contrast: weight of the squared distances to the repelling prototypes, w_c.
        rates: factors on the learning rates of the two sets. The released code has 0.5 and 0.0001 without momentum
            beside the network's 0.01 with momentum 0.9, which amounts to a rate of 0.1: hence 5 and 0.001, as all have
            momentum here.

    Raises:
        UserError: a negative weight.
    """

    proximity: NonNegativeFloat = 1.0
    contrast: NonNegativeFloat = 1e-4
    rates: Mapping[str, NonNegativeFloat] = field(default_factory=lambda: {"centroids": 5.0, "repelling": 0.001})

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def normalized(self) -> bool:
        """False: distances are of features as they are."""
        return False

    def points(self, num_classes: int, dim: int) -> nn.ModuleDict:
        """Two sets of prototypes drawn from N(0, 1)."""
        sets = {name: Centroids(num_classes, dim, unit=False) for name in ("centroids", "repelling")}
        return nn.ModuleDict(sets)

    def terms(self, features: Tensor, points: nn.ModuleDict, y: Tensor, shares: Tensor) -> dict[str, Tensor]:
        """``proximity`` and ``contrast``."""
        weights = {"proximity": self.proximity, "contrast": self.contrast}
        centroids, repelling = (points.get_parameter(f"{name}.weight") for name in ("centroids", "repelling"))
        values = prototype_conformity_terms(features, centroids, repelling, y)
        return {name: weights[name] * (shares * value).mean() for name, value in values.items()}
