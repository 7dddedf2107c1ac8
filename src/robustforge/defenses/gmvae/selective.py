"""The selective classifier: its answer, its second look at what it rejects, and what it does with a batch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robustforge.defenses.gmvae.mixture import MixtureDetector, squared_distances
from robustforge.defenses.gmvae.networks import reconstruction_error, squared_residual
from robustforge.defenses.gmvae.reclassify import search_in_bf16, search_latents
from robustforge.defenses.gmvae.settings import ReclassificationSettings
from robustforge.randomness import SampleRandom
from robustforge.types import Batch, DefenseOutput


@dataclass(frozen=True)
class SelectiveClassifier:
    """The networks of a Gaussian-mixture VAE and their answer.

    Attributes:
        encoder: (B, C, H, W) -> (B, k) means, or (B, 2 k) with log variances.
        decoder: (B, k) -> (B, C, H, W) in [0, 1].
        detector: class means, covariances and thresholds.
        latent: k.
    """

    encoder: nn.Module
    decoder: nn.Module
    detector: MixtureDetector
    latent: int

    def encode(self, x: Tensor) -> Tensor:
        """(B, k) float32 mean of the encoder's distribution."""
        means: Tensor = self.encoder(x)[:, : self.latent].float()
        return means

    def posterior(self, x: Tensor, variance: float) -> tuple[Tensor, Tensor]:
        """(B, k) mean and (B, k) float64 variances of the encoder's distribution, ``variance`` where it is constant."""
        answer = self.encoder(x).float()
        mean, log_variance = answer[:, : self.latent], answer[:, self.latent :]
        return mean, log_variance.double().exp() if log_variance.shape[1] else torch.full_like(mean.double(), variance)

    def scores(self, z: Tensor) -> Tensor:
        """(B, K) logits of latents (B, k): minus the squared distance to each mean."""
        return -squared_distances(z, self.detector.means)

    def respond(self, x: Tensor, classes: Tensor | None = None) -> DefenseOutput:
        """Logits (B, K), risk (B,), rebuilt image, detector_scores: encoder, decoder.

        The scores are those that images (B, C, H, W) have as ``classes`` (B,), by default the predicted ones.
        """
        z = self.encode(x)
        rebuilt = self.decoder(z).float()
        detector_scores = self.detector.detector_scores(z, squared_residual(x, rebuilt), classes)
        return DefenseOutput(self.scores(z), detector_scores.amax(1), rebuilt, detector_scores)


def reclassified(classifier: SelectiveClassifier, settings: ReclassificationSettings, x: Tensor) -> DefenseOutput:
    """The system that looks again at what it rejects (Eq. 9).

    Args:
        classifier: its networks and thresholds.
        settings: of the second look.
        x: (B, C, H, W) in [0, 1].

    Returns:
        Logits of the latent found where the direct path rejects, the direct ones elsewhere. In mode ``accept`` no risk,
        as it always answers; in mode ``reject`` the scores of the latent found.

    Notes:
        Rejected means a score above its own threshold, whatever threshold an evaluation puts on the risk.
    """
    detector, direct = classifier.detector, classifier.respond(x)
    assert direct.detector_scores is not None
    logits, detector_scores = direct.logits.clone(), direct.detector_scores.clone()
    rejected = (detector_scores.amax(1) > 1).nonzero().flatten()
    starts = detector.means.expand(len(rejected), -1, -1)
    if settings.starts == "nearest":
        starts = detector.means[logits[rejected].argmax(1)][:, None]
    bf16 = search_in_bf16(settings.precision, x.device)
    z, _ = search_latents(classifier.decoder, starts, x[rejected], settings.steps, settings.lr, bf16)
    logits[rejected] = classifier.scores(z)
    if settings.mode == "accept":
        return DefenseOutput(logits)
    detector_scores[rejected] = detector.detector_scores(z, squared_residual(x[rejected], classifier.decoder(z)))
    return DefenseOutput(logits, detector_scores.amax(1), detector_scores=detector_scores)


def fit_numbers(classifier: SelectiveClassifier, batch: Batch) -> dict[str, Tensor]:
    """Accuracy (B,), squared reconstruction error and squared distance to the own class's mean, without thresholds."""
    z = classifier.encode(batch.x)
    return {
        "accuracy": (classifier.detector.nearest(z) == batch.y).float(),
        "reconstruction_error": reconstruction_error(batch.x, classifier.decoder(z)),
        "latent_distance": (z - classifier.detector.means[batch.y]).square().sum(1),
    }


def selective_numbers(classifier: SelectiveClassifier, batch: Batch, seed: int) -> dict[str, Tensor]:
    """The selective classifier's triple on clean images at its own thresholds, and what uniform noise meets.

    Args:
        classifier: its networks and thresholds.
        batch: clean images.
        seed: of the noise.

    Returns:
        (B,) each: ``accepted_correct``, ``accepted_wrong``, ``rejected``; ``rejected_by_encoder`` and
        ``rejected_by_decoder``; ``noise_accepted``, of one noise image for each image; ``reconstruction_error``,
        squared.
    """
    noise = SampleRandom(seed, "gmvae/noise").uniform(batch.index, batch.x.shape[1:])
    output, on_noise = classifier.respond(batch.x), classifier.respond(noise)
    detector_scores = output.detector_scores
    assert detector_scores is not None
    assert output.purified is not None
    assert on_noise.risk is not None
    correct, accepted = output.logits.argmax(1) == batch.y, detector_scores.amax(1) <= 1
    found = {
        "accepted_correct": accepted & correct,
        "accepted_wrong": accepted & ~correct,
        "rejected": ~accepted,
        "rejected_by_encoder": detector_scores[:, 0] > 1,
        "rejected_by_decoder": detector_scores[:, 1:].amax(1) > 1,
        "noise_accepted": on_noise.risk <= 1,
        "reconstruction_error": reconstruction_error(batch.x, output.purified),
    }
    return {name: values.float() for name, values in found.items()}
