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
        defense: its networks, thresholds and plan.
        x: (B, C, H, W) in [0, 1].

    Returns:
        Logits of the latent found where the direct path rejects, the direct ones elsewhere. In mode ``accept`` no risk,
        as it always answers; in mode ``reject`` the scores of the latent found.

    Notes:
        Rejected means a score above its own threshold, whatever threshold an evaluation puts on the risk.
    """
    plan, means = defense.reclassification, defense.detector.means
    logits, parts = direct(defense, x)
    rejected = (parts.amax(1) > 1).nonzero().flatten()
    starts = means.expand(len(rejected), -1, -1)
    if plan.starts == "nearest":
        starts = means[logits[rejected].argmax(1)][:, None]
    bf16 = search_in_bf16(plan.precision, x.device)
    z, _ = search_latents(defense.decoder, starts, x[rejected], plan.steps, plan.lr, bf16)
    logits, parts = logits.clone(), parts.clone()
    logits[rejected] = defense.scores(z)
    if plan.mode == "accept":
        return DefenseOutput(logits)
    parts[rejected] = defense.detector.parts(z, squared_residual(x[rejected], defense.decoder(z)))
    return DefenseOutput(logits, parts.amax(1), parts=parts)


def direct(defense: GaussianMixtureVAE, x: Tensor) -> tuple[Tensor, Tensor]:
    """(logits (B, K), parts (B, 2)) of the direct path."""
    output = defense(x)
    assert output.parts is not None
    return output.logits, output.parts


def figures(defense: GaussianMixtureVAE, batch: Batch) -> dict[str, Tensor]:
    """The selective classifier's triple on clean images at its own thresholds, and what uniform noise meets.

    Returns:
        (B,) each: ``accepted_correct``, ``accepted_wrong``, ``rejected``; ``rejected_by_encoder`` and
        ``rejected_by_decoder``; ``noise_accepted``, of one noise image for each image; ``reconstruction_error``,
        squared.
    """
    output = defense(batch.x)
    logits, parts, rebuilt = output.logits, output.parts, output.purified
    assert parts is not None
    assert rebuilt is not None
    correct, accepted = logits.argmax(1) == batch.y, parts.amax(1) <= 1
    noise = SampleRandom(defense.seed, "gmvae/noise").uniform(batch.index, batch.x.shape[1:])
    found = {
        "accepted_correct": accepted & correct,
        "accepted_wrong": accepted & ~correct,
        "rejected": ~accepted,
        "rejected_by_encoder": parts[:, 0] > 1,
        "rejected_by_decoder": parts[:, 1:].amax(1) > 1,
        "noise_accepted": direct(defense, noise)[1].amax(1) <= 1,
        "reconstruction_error": reconstruction_error(batch.x, rebuilt),
    }
    return {name: values.float() for name, values in found.items()}
