"""What an attacker of the Gaussian-mixture VAE may differentiate.

============== ==================================================== ==============================================
surface        gradient of                                          who uses it
============== ==================================================== ==============================================
``encoder``    class scores -|f(x) - mu_c|^2; no detector at all     the paper's FGSM, MIM and PGD
``end_to_end`` the same scores; ``attacker_output`` adds risk and both detector_scores  attacks that evade the detector
``white_box``  scores of class, encoder threshold and decoder        the paper's Eqs. 10 and 11; any plain attack
               threshold in one                                      that must satisfy all three at once
``aimed``      label, distance to the target's mean and error, each  the adapted attack (attack=constraints), which
               in units of its threshold; begins at images that the  tries every target
               decoder makes of the target
``transfer``   the undefended classifier                             the oblivious attacker
``judged``     as ``white_box``; judged by the system that rejects   fooling images: accepted here are those that an
               what the undefended classifier confirms               independent classifier does not take for the class
============== ==================================================== ==============================================

All but the last are judged by the selective classifier: class, both thresholds. Scores are plain squared distances:
divided by the components' variance they would saturate every softmax, with gradients that are exactly zero.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from robustforge.attacks.core.surface import Surface, transfer
from robustforge.defenses.gmvae.networks import reconstruction_error, squared_residual
from robustforge.defenses.gmvae.reclassify import search_in_bf16, search_latents
from robustforge.randomness import SampleRandom
from robustforge.types import DefenseOutput

if TYPE_CHECKING:
    from robustforge.defenses.gmvae.module import GaussianMixtureVAE


def gmvae_surfaces(defense: GaussianMixtureVAE) -> dict[str, Surface]:
    """The surfaces of the selective classifier, by name."""

    def system(x: Tensor, _: Tensor) -> DefenseOutput:
        return defense(x)

    def scores(x: Tensor, _: Tensor) -> tuple[Tensor]:
        return (defense.scores(defense.encode(x)),)

    def without_detector(x: Tensor, _: Tensor) -> DefenseOutput:
        return DefenseOutput(defense.scores(defense.encode(x)))

    def white_box(x: Tensor, _: Tensor) -> tuple[Tensor]:
        return (white_box_scores(defense, x),)

    def toward(x: Tensor, target: Tensor) -> DefenseOutput:
        return aimed_answer(defense, x, target)

    def start(target: Tensor, index: Tensor, restart: int) -> Tensor:
        return target_images(defense, target, index, restart)

    end_to_end = Surface("end_to_end", scores, system, defense)
    found = {
        "end_to_end": end_to_end,
        "encoder": Surface("encoder", scores, system, defense, attacker_output=without_detector),
        "white_box": Surface("white_box", white_box, system, defense),
        "aimed": Surface("aimed", white_box, system, defense, attacker_output=toward, aimed=True, start=start),
        "transfer": transfer(defense.undefended, end_to_end),
    }
    if defense.judge:
        found["judged"] = Surface("judged", white_box, lambda x, _: unconfirmed(defense, x), defense)
    return found


def aimed_answer(defense: GaussianMixtureVAE, x: Tensor, target: Tensor) -> DefenseOutput:
    """The selective classifier's answer with the scores that images (B, C, H, W) would have as ``target`` (B,)."""
    z = defense.encode(x)
    rebuilt = defense.decoder(z).float()
    detector_scores = defense.detector.detector_scores(z, squared_residual(x, rebuilt), target)
    return DefenseOutput(defense.scores(z), detector_scores.amax(1), rebuilt, detector_scores)


def target_images(defense: GaussianMixtureVAE, target: Tensor, index: Tensor, restart: int) -> Tensor:
    """Images (n, C, H, W) decoded from the fitted component of each ``target`` (n,), another draw each restart.

    Notes:
        An attacker without training images has these: what the decoder itself makes of the class wanted, drawn with
        the covariance of held-out encodings.
    """
    noise = SampleRandom(defense.seed, "gmvae/target", restart).normal(index, (defense.latent,))
    factor = torch.linalg.cholesky(defense.detector.covariance)[target]
    return defense.decoder(defense.detector.means[target] + torch.einsum("bij,bj->bi", factor, noise)).float()


def unconfirmed(defense: GaussianMixtureVAE, x: Tensor) -> DefenseOutput:
    """The selective classifier that also rejects what the undefended classifier takes for the same class.

    What it accepts has fooled the detector: an independent classifier, which never saw it, does not see that class.
    """
    output = defense(x)
    assert output.risk is not None
    agrees = defense.undefended(x).argmax(1) == output.logits.argmax(1)
    return DefenseOutput(output.logits, output.risk.masked_fill(agrees, float("inf")))


def white_box_scores(defense: GaussianMixtureVAE, x: Tensor) -> Tensor:
    """Class scores -log(1 + penalty_c) with the penalty of Eq. 10 for each class as the target.

    penalty_c = sum_s (error_s / tau_dec,s)^a + ((mu_c - f(x))' Sigma_c^-1 (mu_c - f(x)) / tau_enc)^b.

    Args:
        defense: whose networks and thresholds.
        x: (B, C, H, W) images.

    Returns:
        (B, K) float32, at most 0.

    Notes:
        The paper's only error is |x - g(f(x))|^2; every further one of ``detector.decoder_errors`` adds a term. The
        logarithm changes no minimum and keeps the scores in a range where cross-entropy has gradients; attacks that
        want the penalty itself undo it. Eq. 10 is printed with the covariance where its inverse must stand: with
        ``paper_literal`` it is computed as printed. The exponents a, b > 1 are not given: 2.
    """
    a, b = defense.exponents
    z, detector = defense.encode(x), defense.detector
    error = detector.all_errors(squared_residual(x, defense.decoder(z))) / detector.tau_decoder  # (B, K, S)
    distance = detector.all_mahalanobis(z, literal=defense.paper_literal) / detector.tau_encoder
    return -torch.log1p(error.pow(a).sum(2) + distance.pow(b))


def search_scores(defense: GaussianMixtureVAE, x: Tensor) -> Tensor:
    """Class scores of the second look: minus the error of the best image found from each class's mean.

    Args:
        defense: whose decoder searches, for ``attacked_steps``.
        x: (B, C, H, W) images.

    Returns:
        (B, K) float32.

    Notes:
        The latents found are constants: at a minimum over the latent, the derivative of the error in the image is that
        with the latent held (the envelope theorem). A search that wanders to another mean is told under the class that
        it began at; what the system answers is judged by the whole search.
    """
    settings, means = defense.reclassification, defense.detector.means
    images = x.repeat_interleave(len(means), 0)
    starts = means.repeat(len(x), 1)[:, None]
    bf16 = search_in_bf16(settings.precision, x.device)
    z, _ = search_latents(defense.decoder, starts, images.detach(), settings.attacked_steps, settings.lr, bf16)
    return -reconstruction_error(images, defense.decoder(z.detach())).view(len(x), len(means))


def gmvae_systems(defense: GaussianMixtureVAE) -> dict[str, dict[str, Surface]]:
    """Rows beside the defense: ``without_thresholds`` (accepts everything) and, where asked for, ``reclassified``.

    Notes:
        The row ``reclassified`` is attacked through the direct path, which decides what the second look gets to see;
        ``reclassified_search``, the same system, through the search.
    """
    encoder = gmvae_surfaces(defense)["encoder"]
    assert encoder.attacker_output is not None
    # both are attacked where the selective classifier is under the paper's attacks: the same images for the same seed
    rows = {
        "without_thresholds": {
            "end_to_end": Surface("encoder", encoder.attacker_logits, encoder.attacker_output, defense)
        }
    }
    if defense.reclassification.mode != "none":
        again = Surface("encoder", encoder.attacker_logits, lambda x, _: defense.reclassified(x), defense)
        rows["reclassified"] = {"end_to_end": again}
        if defense.reclassification.attacked_steps:
            search = Surface("search", lambda x, _: (search_scores(defense, x),), again.system, defense)
            rows["reclassified_search"] = {"end_to_end": search}
    return rows
