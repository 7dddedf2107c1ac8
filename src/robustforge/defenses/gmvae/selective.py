"""What the selective classifier does with its inputs: the second look at rejected ones, and the figures of a batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from robustforge.defenses.gmvae.networks import reconstruction_error, squared_residual
from robustforge.defenses.gmvae.reclassify import search_in_bf16, search_latents
from robustforge.randomness import SampleRandom
from robustforge.types import Batch, DefenseOutput

if TYPE_CHECKING:
    from robustforge.defenses.gmvae.module import GaussianMixtureVAE


def reclassified(defense: GaussianMixtureVAE, x: Tensor) -> DefenseOutput:
    """The system that looks again at what it rejects (Eq. 9).

    Args:
        defense: its networks, thresholds and settings.
        x: (B, C, H, W) in [0, 1].

    Returns:
        Logits of the latent found where the direct path rejects, the direct ones elsewhere. In mode ``accept`` no risk,
        as it always answers; in mode ``reject`` the scores of the latent found.

    Notes:
        Rejected means a score above its own threshold, whatever threshold an evaluation puts on the risk.
    """
    settings, means = defense.reclassification, defense.detector.means
    logits, detector_scores = direct(defense, x)
    rejected = (detector_scores.amax(1) > 1).nonzero().flatten()
    starts = means.expand(len(rejected), -1, -1)
    if settings.starts == "nearest":
        starts = means[logits[rejected].argmax(1)][:, None]
    bf16 = search_in_bf16(settings.precision, x.device)
    z, _ = search_latents(defense.decoder, starts, x[rejected], settings.steps, settings.lr, bf16)
    logits, detector_scores = logits.clone(), detector_scores.clone()
    logits[rejected] = defense.scores(z)
    if settings.mode == "accept":
        return DefenseOutput(logits)
    detector_scores[rejected] = defense.detector.detector_scores(z, squared_residual(x[rejected], defense.decoder(z)))
    return DefenseOutput(logits, detector_scores.amax(1), detector_scores=detector_scores)


def direct(defense: GaussianMixtureVAE, x: Tensor) -> tuple[Tensor, Tensor]:
    """(logits (B, K), detector_scores (B, 2)) of the direct path."""
    output = defense(x)
    assert output.detector_scores is not None
    return output.logits, output.detector_scores


def figures(defense: GaussianMixtureVAE, batch: Batch) -> dict[str, Tensor]:
    """The selective classifier's triple on clean images at its own thresholds, and what uniform noise meets.

    Returns:
        (B,) each: ``accepted_correct``, ``accepted_wrong``, ``rejected``; ``rejected_by_encoder`` and
        ``rejected_by_decoder``; ``noise_accepted``, of one noise image for each image; ``reconstruction_error``,
        squared.
    """
    output = defense(batch.x)
    logits, detector_scores, rebuilt = output.logits, output.detector_scores, output.purified
    assert detector_scores is not None
    assert rebuilt is not None
    correct, accepted = logits.argmax(1) == batch.y, detector_scores.amax(1) <= 1
    noise = SampleRandom(defense.seed, "gmvae/noise").uniform(batch.index, batch.x.shape[1:])
    found = {
        "accepted_correct": accepted & correct,
        "accepted_wrong": accepted & ~correct,
        "rejected": ~accepted,
        "rejected_by_encoder": detector_scores[:, 0] > 1,
        "rejected_by_decoder": detector_scores[:, 1:].amax(1) > 1,
        "noise_accepted": direct(defense, noise)[1].amax(1) <= 1,
        "reconstruction_error": reconstruction_error(batch.x, rebuilt),
    }
    return {name: values.float() for name, values in found.items()}
