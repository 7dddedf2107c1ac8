"""The Gaussian-mixture VAE as a LightningModule: which networks, which stages, which losses."""

from __future__ import annotations

from functools import partial
from math import prod

import torch
from torch import Tensor

from robustforge.attacks.core.surface import Surface
from robustforge.defenses.base import Defense, classify
from robustforge.defenses.figures import Figure
from robustforge.defenses.gmvae.calibration import calibrate
from robustforge.defenses.gmvae.figures import gmvae_figures
from robustforge.defenses.gmvae.labeled import LabeledPool, choose_labeled
from robustforge.defenses.gmvae.losses import labeled_terms, unlabeled_terms, with_attacked
from robustforge.defenses.gmvae.mixture import MixtureDetector
from robustforge.defenses.gmvae.networks import mixture_decoder, mixture_encoder
from robustforge.defenses.gmvae.selective import SelectiveClassifier, fit_numbers, selective_numbers
from robustforge.defenses.gmvae.settings import (
    AdversarialSettings,
    DetectorSettings,
    LabelSettings,
    ReclassificationSettings,
)
from robustforge.defenses.gmvae.surfaces import gmvae_surfaces, gmvae_systems
from robustforge.defenses.stages import CalibrateStage, Factory, FitStage, Stage, Training, build_seeded
from robustforge.defenses.undefended import plain_stage
from robustforge.ranges import Classes, PositiveFloat, PositiveInt, Seed, Shape
from robustforge.types import Batch, DefenseOutput, UserError

_OBJECTIVE = ("variance", "alpha", "variable_entropy", "labels", "adversarial", "training")
MNIST_PIXELS = 784  # alpha is tuned for as many; a summed reconstruction error grows with them


class GaussianMixtureVAE(Defense):
    """Class by the nearest component mean; rejects what is far from it or badly rebuilt.

    Args:
        model: factory of the undefended classifier, for its row, for transfer and for the features of samples' quality.
        training: how encoder and decoder are optimized.
        undefended_training: how the undefended classifier is.
        shape: (C, H, W) of the images.
        num_classes: K.
        detector: how the thresholds are fitted.
        reclassification: the second look at rejected inputs.
        labels: which labels training may see.
        latent: k, length of the latent; None for K.
        variance: sigma^2 of the encoder's noise and of the components, latent units squared (paper: 1/3000 on MNIST).
        alpha: weight of the latent term; None for 100 C H W / 784.
        variable_entropy: the encoder answers its own variances, with an ordinary VAE's KL term (the paper's Fig. 5).
        width, batch_norm: of the networks, see :func:`robustforge.defenses.gmvae.networks.mixture_encoder`.
        exponents: a and b of Eqs. 10 and 11.
        paper_literal: the white-box surface takes Eq. 10 as printed, with the covariance in place of its inverse.
        adversarial: adversarial training of the encoder, or None (paper).
        judge: adds the surface ``judged``, on which only what the undefended classifier denies is accepted.
        fid: measure the FID of samples too, which needs torch-fidelity and the Inception weights that it downloads.
        seed: of initial weights, labels, batches and noise.

    Raises:
        UserError: a latent narrower than K, sizes without a layout, variances that are not positive, or variable
            entropy or adversarial training with missing labels.

    Notes:
        Inference is deterministic: the latent is f(x), without noise, in the class, in both scores and in the rebuilt
        image. Errors are squared norms; ``detector.decoder_errors`` adds a robust one, which is ours. The risk is the
        largest of the scores, each in units of its own threshold: the paper's rule is risk <= 1.

        The paper does not give alpha. 100 leaves little more than half of the reconstruction error that 1000 does
        (MNIST, half width, 15 epochs) at about the same accuracy: the decoder's threshold is tighter.
    """

    evaluation_only = ("reclassification", "exponents", "paper_literal", "judge", "fid")

    def __init__(
        self,
        model: Factory,
        training: Training,
        undefended_training: Training,
        shape: Shape,
        num_classes: Classes,
        detector: DetectorSettings,
        reclassification: ReclassificationSettings,
        labels: LabelSettings,
        latent: PositiveInt | None = None,
        variance: PositiveFloat = 1 / 3000,
        alpha: PositiveFloat | None = None,
        variable_entropy: bool = False,
        width: PositiveFloat = 1.0,
        batch_norm: bool = False,
        exponents: tuple[PositiveFloat, PositiveFloat] = (2.0, 2.0),
        paper_literal: bool = False,
        adversarial: AdversarialSettings | None = None,
        judge: bool = False,
        fid: bool = False,
        seed: Seed = 0,
    ) -> None:
        super().__init__(seed=seed, training=training)
        if not variance > 0:
            raise UserError(f"defense.variance is {variance}: give a number above 0, such as 1/3000.")
        if labels.per_class is not None and (variable_entropy or adversarial is not None):
            kind = "Variable entropy" if variable_entropy else "Adversarial training of the encoder"
            raise UserError(f"{kind} needs all labels: set defense.labels.per_class=null.")
        self.undefended_training = undefended_training
        self.detector_settings, self.reclassification, self.label_settings = detector, reclassification, labels
        self.num_classes, self.latent = num_classes, num_classes if latent is None else latent
        self.variance, self.variable_entropy = variance, variable_entropy
        self.alpha = 100 * prod(shape) / MNIST_PIXELS if alpha is None else alpha
        self.exponents, self.paper_literal = tuple(exponents), paper_literal
        self.adversarial, self.judge, self.fid = adversarial, judge, fid
        self.layers = {"shape": list(shape), "latent": self.latent, "width": width, "batch_norm": batch_norm}
        self.pool: LabeledPool | None = None
        self.detector = MixtureDetector(num_classes, self.latent, variance, prod(shape), detector.decoder_errors)
        outputs = self.latent * (2 if variable_entropy else 1)
        self.undefended = build_seeded(model, seed, "undefended")
        self.encoder = build_seeded(lambda: mixture_encoder(shape, outputs, width, batch_norm), seed, "encoder")
        self.decoder = build_seeded(lambda: mixture_decoder(shape, self.latent, width, batch_norm), seed, "decoder")

    @property
    def classifier(self) -> SelectiveClassifier:
        """The networks with their answer."""
        return SelectiveClassifier(self.encoder, self.decoder, self.detector, self.latent)

    def forward(self, x: Tensor) -> DefenseOutput:
        """(B, C, H, W) in [0, 1] -> logits (B, K), risk (B,), rebuilt image, detector_scores: encoder, decoder."""
        return self.classifier.respond(x)

    def surfaces(self) -> dict[str, Surface]:
        """``end_to_end``, ``encoder``, ``white_box``, ``aimed`` and ``transfer``: see the module of that name."""
        return gmvae_surfaces(
            self, self.classifier, self.undefended, self.exponents, self.paper_literal, self.judge, self.seed
        )

    def systems(self) -> dict[str, dict[str, Surface]]:
        """The undefended classifier, the model without thresholds and, where asked for, with reclassification."""
        rows = gmvae_systems(self.surfaces()["encoder"], self.classifier, self.reclassification)
        return {"undefended": classify(self.undefended), **rows}

    def figures(self) -> dict[str, Figure]:
        """Samples and reconstructions: see the module of that name."""
        white_box = self.surfaces()["white_box"]
        return gmvae_figures(self.classifier, self.variance, self.undefended, white_box, self.fid)

    def stages(self) -> list[Stage]:
        """Undefended classifier, encoder and decoder, thresholds."""
        assert self.training_settings is not None
        all_labels = self.label_settings.per_class is None
        fit = partial(calibrate, self.classifier, self.detector_settings, self.variance, all_labels)
        takes = "shape", "num_classes", "latent", "width", "batch_norm", *_OBJECTIVE
        losses, training, validate = self.losses, self.training_settings, self.validate
        return [
            plain_stage(self),
            FitStage("gmvae", ("encoder", "decoder"), losses, training, validate=validate, takes=takes),
            CalibrateStage("thresholds", ("detector",), fit, ("gmvae",), takes=("detector", "variance")),
        ]

    def on_train_start(self) -> None:
        """Chooses the labeled images, the same ones after a resume."""
        if self.active_stage.name == "gmvae" and self.label_settings.per_class is not None:
            split = self.trainer.datamodule.train  # type: ignore[attr-defined]
            rows = choose_labeled(split.labels, self.label_settings.per_class, self.num_classes, self.seed)
            self.pool = LabeledPool(split.images[rows].contiguous(), split.labels[rows], self.seed)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Eq. 7 (or its variable-entropy form); without most labels, Eq. 7 on labeled and Eq. 3 on all images."""
        classifier, variance, alpha = self.classifier, self.variance, self.alpha
        if self.label_settings.per_class is None:
            terms = labeled_terms(classifier, batch.x, batch.y, variance, alpha, self.variable_entropy)
            if self.adversarial is None:
                return terms
            encoder, seed = self.surfaces()["encoder"], self.attack_seed()
            return with_attacked(terms, classifier, self.adversarial, encoder, batch, alpha, seed)
        assert self.pool is not None, "semi-supervised training chooses its labels when it starts"
        progress = self.current_epoch / max(1, self.active_stage.training.epochs - 1)
        x, y = self.pool.draw(batch.index, self.current_epoch)
        return {
            **labeled_terms(classifier, x, y, variance, alpha, self.variable_entropy),
            **unlabeled_terms(classifier, batch.x, variance, alpha, self.label_settings, progress),
        }

    @torch.no_grad()
    def validate(self, batch: Batch) -> dict[str, Tensor]:
        """How well encoder and decoder fit held-out images: see :func:`fit_numbers`."""
        return fit_numbers(self.classifier, batch)

    @torch.no_grad()
    def diagnostics(self, batch: Batch) -> dict[str, Tensor]:
        """The triple on clean images, and what noise meets: see :func:`selective_numbers`."""
        return selective_numbers(self.classifier, batch, self.seed)
