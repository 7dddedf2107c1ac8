"""The choices of a Gaussian-mixture VAE as data: its thresholds, its second look at rejected inputs, its labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from robustforge.defenses.choices import one_of
from robustforge.types import UserError

COVARIANCES = ("fixed", "empirical", "aggregated")
ENCODER_RULES = ("quantile", "chi2")
DECODER_ERRORS = ("squared", "cauchy")
DECODER_RULES = ("std", "quantile")
MODES = ("none", "reject", "accept")
STARTS = ("all", "nearest")
PRECISIONS = ("auto", "float32", "bf16")


@dataclass(frozen=True)
class DetectorSettings:
    """How the two thresholds are fitted on held-out images.

    Attributes:
        covariance: of a class in latent space: ``fixed`` (the encoder's own variance), ``empirical`` (of held-out
            encodings around the class mean) or ``aggregated`` (both added: the covariance of the noisy encodings).
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
    """

    covariance: str = "aggregated"
    shared: bool = False
    encoder_rule: str = "quantile"
    encoder_quantile: float = 0.99
    chi2_level: float = 0.9973
    decoder_errors: Sequence[str] = ("squared",)
    decoder_floor: float = 0.02
    decoder_rule: str = "std"
    decoder_std: float = 3.0
    decoder_quantile: float = 0.99
    decoder_per_class: bool = False

    def __post_init__(self) -> None:
        one_of("defense.detector.covariance", self.covariance, COVARIANCES)
        one_of("defense.detector.encoder_rule", self.encoder_rule, ENCODER_RULES)
        if not self.decoder_errors:
            raise UserError("defense.detector.decoder_errors is empty: give [squared], [cauchy] or both.")
        for kind in self.decoder_errors:
            one_of("defense.detector.decoder_errors", kind, DECODER_ERRORS)
        one_of("defense.detector.decoder_rule", self.decoder_rule, DECODER_RULES)
        for name in ("encoder_quantile", "chi2_level", "decoder_quantile"):
            if not 0 < getattr(self, name) < 1:
                raise UserError(f"defense.detector.{name} is {getattr(self, name)}: give a share between 0 and 1.")
        if not self.decoder_floor > 0:
            raise UserError(f"defense.detector.decoder_floor is {self.decoder_floor}: give pixel units above 0.")


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

    mode: str = "none"
    steps: int = 500
    lr: float = 0.05
    starts: str = "all"
    precision: str = "auto"
    attacked_steps: int = 0

    def __post_init__(self) -> None:
        one_of("defense.reclassification.mode", self.mode, MODES)
        one_of("defense.reclassification.starts", self.starts, STARTS)
        one_of("defense.reclassification.precision", self.precision, PRECISIONS)
        if self.steps < 1:
            raise UserError(f"defense.reclassification.steps is {self.steps}: give at least 1.")
        if self.attacked_steps < 0:
            raise UserError(f"defense.reclassification.attacked_steps is {self.attacked_steps}: give 0 or more.")


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

    per_class: int | None = None
    anneal_from: float = 100.0
    anneal_until: float = 0.7

    def __post_init__(self) -> None:
        if self.per_class is not None and self.per_class < 1:
            raise UserError(f"defense.labels.per_class is {self.per_class}: give at least 1, or null for all labels.")
        if not (self.anneal_from >= 1 and 0 <= self.anneal_until <= 1):
            raise UserError("defense.labels: give anneal_from of at least 1 and anneal_until between 0 and 1.")
