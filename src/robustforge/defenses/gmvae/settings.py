"""The choices of a Gaussian-mixture VAE as data: its thresholds, its second look at rejected inputs, its labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge

from robustforge.attacks.core.attack import Attack
from robustforge.hints import check_fields
from robustforge.ranges import (
    NonNegativeFloat,
    NonNegativeInt,
    OpenShare,
    PositiveFloat,
    PositiveInt,
    Precision,
    Share,
    Some,
)
from robustforge.types import Threat


@dataclass(frozen=True)
class DetectorSettings:
    """How the two thresholds are fitted on held-out images.

    Attributes:
        covariance: of a class in latent space: ``fixed`` (the encoder's own variance, of variable entropy its mean over
            the class's held-out images), ``empirical`` (of held-out encodings around the class mean) or ``aggregated``
            (both added: the covariance of the noisy encodings).
        classes: which classes held-out images belong to for the covariance: ``given`` (their labels), ``predicted``
            (the nearest mean's, which asks for no label) or ``auto``: given where training sees all labels, predicted
            where it sees some.
        shared: one covariance for all classes, for data sets with few held-out images a class.
        encoder_rule: ``quantile`` of the held-out distances, or ``chi2``, the critical value of the paper.
        encoder_quantile: share of held-out images below the encoder's threshold.
        chi2_level: probability of the chi-square value (paper: the 3-sigma rule, 0.9973).
        decoder_errors: reconstruction errors with a threshold each, ``squared`` (paper), ``cauchy`` (ours) or both: see
            :meth:`robustforge.defenses.gmvae.mixture.MixtureDetector.errors`.
        decoder_floor: least scale of a pixel's residual in ``cauchy``, pixel units: its square is added to the mean
            square of held-out residuals.
        decoder_rule: ``std``, mean + ``decoder_std`` standard deviations of the held-out errors, or ``quantile``.
        decoder_std: number of standard deviations (paper: 3).
        decoder_quantile: share of held-out images below the decoder's threshold.
        decoder_per_class: a threshold on the error for each predicted class.

    Raises:
        UserError: an unknown word, no error, a share outside (0, 1), or a floor that is not positive.

    Notes:
        The paper's decoder has one variance for all pixels, so that noise where no image of the class ever has any
        weighs as little as a stroke a pixel off. The Cauchy error finds such noise at the same share of clean images
        and misses more wrong strokes than the squared one: both together are the stronger detector.

        Held-out labels are no part of the semi-supervised setting: MNIST's 5,000 would be five times what its training
        sees. The labeled pool itself would not do instead, since the encoder was fitted to it, and its encodings lie
        nearer to their means than new ones.
    """

    covariance: Literal["fixed", "empirical", "aggregated"] = "aggregated"
    classes: Literal["auto", "given", "predicted"] = "auto"
    shared: bool = False
    encoder_rule: Literal["quantile", "chi2"] = "quantile"
    encoder_quantile: OpenShare = 0.99
    chi2_level: OpenShare = 0.9973
    decoder_errors: Some[Literal["squared", "cauchy"]] = ("squared",)
    decoder_floor: PositiveFloat = 0.02
    decoder_rule: Literal["std", "quantile"] = "std"
    decoder_std: NonNegativeFloat = 3.0
    decoder_quantile: OpenShare = 0.99
    decoder_per_class: bool = False

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class ReclassificationSettings:
    """The second look at rejected inputs (Eq. 9): which latent decodes to this image?

    Attributes:
        mode: ``none``; ``reject`` (the thresholds apply again, to the latent found); ``accept`` (every input gets a
            label: where fooling inputs are not expected).
        steps: of Adam on the latent.
        lr: its step size, latent units.
        starts: ``all`` class means side by side, or the ``nearest`` one alone.
        precision: of the search: ``auto`` (bf16 where the hardware has it), ``float32`` or ``bf16``; which start ended
            best is decided in float32.
        attacked_steps: of the search that the row ``reclassified_search`` lets an attacker see on every pass; 0 for no
            such row.

    Raises:
        UserError: an unknown word, no step, or a negative number of them.
    """

    mode: Literal["none", "reject", "accept"] = "none"
    steps: PositiveInt = 500
    lr: PositiveFloat = 0.05
    starts: Literal["all", "nearest"] = "all"
    precision: Precision = "auto"
    attacked_steps: NonNegativeInt = 0

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class LabelSettings:
    """Which labels training may see.

    Attributes:
        per_class: labeled images of each class (paper: 100), or None for all of them.
        anneal_from: factor on the component variance of the unlabeled term at the beginning.
        anneal_until: share of training after which that factor is 1.

    Raises:
        UserError: no labeled image, a factor below 1, or a share outside [0, 1].
    """

    per_class: PositiveInt | None = None
    anneal_from: Annotated[float, Ge(1)] = 100.0
    anneal_until: Share = 0.7

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class AdversarialSettings:
    """Adversarial training of the encoder, which the paper does not have: attacked images stay at their class's mean.

    Attributes:
        attack: makes the training examples, on the encoder's class scores.
        threat: their budget.
        weight: share of attacked images in the latent term.

    Raises:
        UserError: a share outside [0, 1].
    """

    attack: Attack
    threat: Threat
    weight: Share = 0.5

    def __post_init__(self) -> None:
        check_fields(self)
