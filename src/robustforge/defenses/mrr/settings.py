"""The choices of modular robust redundancy as data: its latent defenders, its input defenders, their fusion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from robustforge.attacks.core.attack import Attack
from robustforge.defenses.choices import one_of
from robustforge.defenses.mrr.density import KINDS
from robustforge.defenses.mrr.losses import REDUCTIONS, REGULARIZERS
from robustforge.defenses.mrr.networks import PENULTIMATE
from robustforge.defenses.mrr.sparse_coding import SCORES
from robustforge.defenses.stages import Training
from robustforge.types import Threat, UserError

PUSHES = ("normalized", "raw", "none")
FUSIONS = ("mean_cdf", "or", "gaussian_mixture", "noisy_or_leaky")
CALIBRATIONS = {"held_out": "calibration", "training": "train"}  # and the split that each stands for


@dataclass(frozen=True)
class LatentSettings:
    """Copies of the victim, fine-tuned one after another so that their features gather around class centers.

    Attributes:
        training: of each defender.
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
        UserError: an unknown word or a number out of range.
    """

    training: Training
    layers: Sequence[str] = (PENULTIMATE,)
    pool: int = 1
    gamma: float = 0.01
    regularizer: str = "released"
    pull_reduction: str = "mean"
    push: str = "normalized"
    push_step: float = 0.5
    density: str = "distance"
    variance_kept: float = 0.99
    components: int = 64

    def __post_init__(self) -> None:
        one_of("defense.latent.regularizer", self.regularizer, REGULARIZERS)
        one_of("defense.latent.pull_reduction", self.pull_reduction, REDUCTIONS)
        one_of("defense.latent.push", self.push, PUSHES)
        one_of("defense.latent.density", self.density, KINDS)
        if self.components < 1 or not 0 < self.variance_kept <= 1:
            raise UserError("defense.latent: give components of at least 1, variance_kept in (0, 1].")


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
    patch: int = 7
    stride: int = 7
    atoms: int = 225
    patches_per_image: int = 30
    alpha: float = 1.0
    iterations: int = 200
    batch: int = 256
    nonzeros: int = 5
    score: str = "residual"

    def __post_init__(self) -> None:
        one_of("defense.input.score", self.score, SCORES)
        for name in ("patch", "stride", "atoms", "patches_per_image", "iterations", "batch", "nonzeros"):
            if getattr(self, name) < 1:
                raise UserError(f"defense.input.{name} is {getattr(self, name)}: give at least 1.")
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

    mode: str = "mean_cdf"
    security_parameter: float = 0.01
    calibration: str = "held_out"
    per_class: bool = True
    least: int = 50
    mixture_components: int = 2
    leak_attacks: Mapping[str, Attack] = field(default_factory=dict)
    leak_threat: Threat | None = None

    def __post_init__(self) -> None:
        one_of("defense.fusion.mode", self.mode, FUSIONS)
        one_of("defense.fusion.calibration", self.calibration, tuple(CALIBRATIONS))
        if not 0 < self.security_parameter < 1:
            raise UserError(
                f"defense.fusion.security_parameter is {self.security_parameter}: give a share between 0 and 1."
            )
        if self.mixture_components < 1:
            raise UserError("defense.fusion.mixture_components: give at least 1.")
        if self.mode == "noisy_or_leaky" and (not self.leak_attacks or self.leak_threat is None):
            raise UserError(
                "noisy_or_leaky measures its weights on attacks: give defense.fusion.leak_attacks and leak_threat."
            )
