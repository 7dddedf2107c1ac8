"""The choices of modular robust redundancy as data: its latent defenders, its input defenders, their fusion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from robustforge.attacks.core.attack import Attack
from robustforge.defenses.mrr.networks import PENULTIMATE
from robustforge.defenses.stages import Training
from robustforge.hints import check_fields
from robustforge.ranges import (
    NonNegativeFloat,
    NonNegativeInt,
    OpenShare,
    PositiveFloat,
    PositiveInt,
    PositiveShare,
    Some,
)
from robustforge.types import Threat, UserError

CALIBRATIONS = {"held_out": "calibration", "training": "train"}  # and the split that each stands for


@dataclass(frozen=True)
class LatentSettings:
    """Networks beside the victim, trained one after another so that their features gather around class centers.

    Attributes:
        training: of each defender.
        init: the weights that a defender starts from: ``fresh`` ones of its own, or the ``victim``'s (released code).
        variants: changes of the model's settings, taken in turn by the defenders, such as ``[{}, {widths: [8, 8]}]``;
            empty for networks like the victim. The checkpointed features must keep their lengths.
        disagreement: every defender gives one score more, -log p(label), the cross-entropy of the victim's label under
            the defender's own logits: high where the two answer different labels.
        layers: checkpointed layers of the victim, by name; each gives every defender one score more.
        pool: maps are averaged down to ``pool`` x ``pool`` positions.
        gamma: weight of the regularizer (released code: 0.01).
        regularizer: ``released`` (code) or ``long_text``.
        pull_reduction: ``mean``, or ``sum`` over the batch (released code); of the released regularizer.
        push: how the next defender's training images are pushed away from this one's centers: ``normalized`` (a step
            of L2 length ``push_step``), ``raw`` (the gradient times ``push_step``; released code, 1) or ``none``:
            defenders that do not know of each other.
        push_step: pixel units for ``normalized``.
        density: ``distance`` to the class mean after PCA (code) or ``gaussian_mixture`` (longer description).
        variance_kept: share of the variance that the principal components hold (code: 0.99).
        components: principal components at most.

    Raises:
        UserError: an unknown word or a number out of range, or variants that are to start from the victim's weights.

    Notes:
        The released code copies the victim's weights and fine-tunes them. The article says that adversarial images of
        the victim "are not transferred to the defender modules", which copies cannot keep: on MNIST, after two epochs,
        they answer the victim's wrong label on every image of BIM (AUC 0.48), with either reduction of the pull.
        Fresh networks repeat 80 to 88 % of them. Hence the default.
    """

    training: Training
    init: Literal["fresh", "victim"] = "fresh"
    variants: Sequence[Mapping[str, Any]] = ()
    disagreement: bool = False
    layers: Some[str] = (PENULTIMATE,)
    pool: PositiveInt = 1
    gamma: NonNegativeFloat = 0.01
    regularizer: Literal["released", "long_text"] = "released"
    pull_reduction: Literal["mean", "sum"] = "mean"
    push: Literal["normalized", "raw", "none"] = "normalized"
    push_step: PositiveFloat = 0.5
    density: Literal["distance", "gaussian_mixture"] = "distance"
    variance_kept: PositiveShare = 0.99
    components: PositiveInt = 64

    def __post_init__(self) -> None:
        check_fields(self)
        if self.variants and self.init == "victim":
            raise UserError(
                "defense.latent.variants makes networks unlike the victim, whose weights do not fit them: set "
                "defense.latent.init=fresh."
            )

    @property
    def scores(self) -> int:
        """Scores of one defender."""
        return len(self.layers) + self.disagreement

    def variant(self, number: int) -> Mapping[str, Any]:
        """Changes of the model's settings for defender ``number``, counted from 1."""
        return self.variants[(number - 1) % len(self.variants)] if self.variants else {}


@dataclass(frozen=True)
class InputSettings:
    """Class dictionaries on patches of the image itself.

    Attributes:
        enabled: whether there is an input defender.
        patch: side of the patches, pixels (code: 7).
        stride: between the patches of a judged image, pixels.
        atoms: of each class's dictionary (code: 225).
        patches_per_image: drawn from each training image (code: 30).
        alpha: sparsity weight of dictionary learning (code: 1).
        iterations: mini-batches of dictionary learning (code: 200).
        batch: patches of a mini-batch.
        nonzeros: coefficients of a code (scikit-learn's 5; 32 in the MATLAB variant).
        score: ``residual`` (code) or ``psnr`` (longer description).

    Raises:
        UserError: an unknown word or a number out of range.
    """

    enabled: bool = False
    patch: PositiveInt = 7
    stride: PositiveInt = 7
    atoms: PositiveInt = 225
    patches_per_image: PositiveInt = 30
    alpha: PositiveFloat = 1.0
    iterations: PositiveInt = 200
    batch: PositiveInt = 256
    nonzeros: PositiveInt = 5
    score: Literal["residual", "psnr"] = "residual"

    def __post_init__(self) -> None:
        check_fields(self)
        if self.nonzeros > self.atoms:
            raise UserError("defense.input.nonzeros is more than defense.input.atoms: give fewer.")


@dataclass(frozen=True)
class FusionSettings:
    """How the scores become one risk in [0, 1]. ``mode`` and SP may change on a trained system: no stage has them.

    Attributes:
        mode: ``mean_cdf`` (mean of the scores' empirical distribution functions), ``or`` (the riskiest defender; above
            0.5 exactly where one of them flags), ``gaussian_mixture`` (likelihood of all scores together) or
            ``noisy_or_leaky`` (released code: weights measured on attacked test images; for comparison only).
        security_parameter: SP, share of calibration images that each defender alone may flag (paper: 1 %, 5 %).
        calibration: ``held_out`` images, or the ``training`` images that the defenders were fitted on (released code,
            whose false positives drift on new images).
        per_class: thresholds and distribution functions for each predicted class (code).
        least: classes predicted for fewer held-out images than this are given those of all classes.
        mixture_components: Gaussians of ``gaussian_mixture``.
        leak_attacks: of ``noisy_or_leaky``, on the victim.
        leak_threat: their budget.

    Raises:
        UserError: an unknown word or a number out of range, or a leak without attacks.
    """

    mode: Literal["mean_cdf", "or", "gaussian_mixture", "noisy_or_leaky"] = "mean_cdf"
    security_parameter: OpenShare = 0.01
    calibration: Literal["held_out", "training"] = "held_out"
    per_class: bool = True
    least: NonNegativeInt = 50
    mixture_components: PositiveInt = 2
    leak_attacks: Mapping[str, Attack] = field(default_factory=dict)
    leak_threat: Threat | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        if self.mode == "noisy_or_leaky" and (not self.leak_attacks or self.leak_threat is None):
            raise UserError(
                "noisy_or_leaky measures its weights on attacks: give defense.fusion.leak_attacks and leak_threat."
            )
