"""What an attacker of the Gaussian-mixture VAE may differentiate.

============== ==================================================== ==============================================
surface        gradient of                                          who uses it
============== ==================================================== ==============================================
``encoder``    class scores -|f(x) - mu_c|^2; no detector at all     the paper's FGSM, MIM and PGD
``end_to_end`` the same scores; ``attacker_output`` adds risk and   attacks that evade the detector
               both detector scores
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

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from robustforge.attacks.core.surface import Surface, transfer
from robustforge.defenses.gmvae.networks import reconstruction_error, squared_residual
from robustforge.defenses.gmvae.reclassify import search_in_bf16, search_latents
from robustforge.defenses.gmvae.selective import SelectiveClassifier, reclassified
from robustforge.defenses.gmvae.settings import ReclassificationSettings
from robustforge.randomness import SampleRandom
from robustforge.types import DefenseOutput


def gmvae_surfaces(
    modules: nn.Module,
    classifier: SelectiveClassifier,
    undefended: nn.Module,
    exponents: Sequence[float],
    literal: bool,
    judge: bool,
    seed: int,
) -> dict[str, Surface]:
    """The surfaces of the selective classifier, by name."""

    def system(x: Tensor, _: Tensor) -> DefenseOutput:
        return classifier.respond(x)

    def scores(x: Tensor, _: Tensor) -> tuple[Tensor]:
        return (classifier.scores(classifier.encode(x)),)

    def without_detector(x: Tensor, y: Tensor) -> DefenseOutput:
        return DefenseOutput(scores(x, y)[0])

    def equation_10(x: Tensor, _: Tensor) -> tuple[Tensor]:
        return (white_box_scores(classifier, x, exponents, literal),)

    def unconfirmed(x: Tensor, y: Tensor) -> DefenseOutput:
        # what is accepted has fooled the detector: an independent classifier, which never saw it, sees another class
        output = system(x, y)
        assert output.risk is not None
        agrees = undefended(x).argmax(1) == output.logits.argmax(1)
        return DefenseOutput(output.logits, output.risk.masked_fill(agrees, float("inf")))

    def start(target: Tensor, index: Tensor, restart: int) -> Tensor:
        return target_images(classifier, target, index, seed, restart)

    aimed = Surface("aimed", equation_10, system, modules, attacker_output=classifier.respond, aimed=True, start=start)
    end_to_end = Surface("end_to_end", scores, system, modules)
    found = {
        "end_to_end": end_to_end,
        "encoder": Surface("encoder", scores, system, modules, attacker_output=without_detector),
        "white_box": Surface("white_box", equation_10, system, modules),
        "aimed": aimed,
        "transfer": transfer(undefended, end_to_end),
    }
    if judge:
        found["judged"] = Surface("judged", equation_10, unconfirmed, modules)
    return found


def target_images(classifier: SelectiveClassifier, target: Tensor, index: Tensor, seed: int, restart: int) -> Tensor:
    """Images (n, C, H, W) decoded from the fitted component of each ``target`` (n,), another draw each restart.

    Notes:
        An attacker without training images has these: what the decoder itself makes of the class wanted, drawn with
        the covariance of held-out encodings.
    """
    detector = classifier.detector
    noise = SampleRandom(seed, "gmvae/target", restart).normal(index, (classifier.latent,))
    factor = torch.linalg.cholesky(detector.covariance)[target]
    decoded: Tensor = classifier.decoder(detector.means[target] + torch.einsum("bij,bj->bi", factor, noise)).float()
    return decoded


def white_box_scores(classifier: SelectiveClassifier, x: Tensor, exponents: Sequence[float], literal: bool) -> Tensor:
    """Class scores -log(1 + penalty_c) with the penalty of Eq. 10 for each class as the target.

    penalty_c = sum_s (error_s / tau_dec,s)^a + ((mu_c - f(x))' Sigma_c^-1 (mu_c - f(x)) / tau_enc)^b.

    Args:
        classifier: whose networks and thresholds.
        x: (B, C, H, W) images.
        exponents: a and b, above 1 (not given in the paper).
        literal: as printed, with the covariance in the place of its inverse.

    Returns:
        (B, K) float32, at most 0.

    Notes:
        The paper's only error is |x - g(f(x))|^2; every further one of ``detector.decoder_errors`` adds a term. The
        logarithm changes no minimum and keeps the scores in a range where cross-entropy has gradients; attacks that
        want the penalty itself undo it.
    """
    a, b = exponents
    z, detector = classifier.encode(x), classifier.detector
    error = detector.all_errors(squared_residual(x, classifier.decoder(z))) / detector.tau_decoder  # (B, K, S)
    distance = detector.all_mahalanobis(z, literal=literal) / detector.tau_encoder
    return -torch.log1p(error.pow(a).sum(2) + distance.pow(b))


def search_scores(classifier: SelectiveClassifier, settings: ReclassificationSettings, x: Tensor) -> Tensor:
    """Class scores of the second look: minus the error of the best image found from each class's mean.

    Args:
        classifier: whose decoder searches, for ``attacked_steps``.
        settings: of the second look.
        x: (B, C, H, W) images.

    Returns:
        (B, K) float32.

    Notes:
        The latents found are constants: at a minimum over the latent, the derivative of the error in the image is that
        with the latent held (the envelope theorem). A search that wanders to another mean is told under the class that
        it began at; what the system answers is judged by the whole search.
    """
    means, decoder = classifier.detector.means, classifier.decoder
    images = x.repeat_interleave(len(means), 0)
    starts = means.repeat(len(x), 1)[:, None]
    bf16 = search_in_bf16(settings.precision, x.device)
    z, _ = search_latents(decoder, starts, images.detach(), settings.attacked_steps, settings.lr, bf16)
    return -reconstruction_error(images, decoder(z.detach())).view(len(x), len(means))


def gmvae_systems(
    encoder: Surface, classifier: SelectiveClassifier, settings: ReclassificationSettings
) -> dict[str, dict[str, Surface]]:
    """Rows beside the defense: ``without_thresholds`` (accepts everything) and, where asked for, ``reclassified``.

    Notes:
        The row ``reclassified`` is attacked through the direct path, which decides what the second look gets to see;
        ``reclassified_search``, the same system, through the search.
    """
    assert encoder.attacker_output is not None
    # both are attacked where the selective classifier is under the paper's attacks: the same images for the same seed
    rows = {
        "without_thresholds": {"end_to_end": replace(encoder, system=encoder.attacker_output, attacker_output=None)}
    }
    if settings.mode != "none":
        again = replace(encoder, system=lambda x, _: reclassified(classifier, settings, x), attacker_output=None)
        rows["reclassified"] = {"end_to_end": again}
        if settings.attacked_steps:
            search = replace(
                again, name="search", attacker_logits=lambda x, _: (search_scores(classifier, settings, x),)
            )
            rows["reclassified_search"] = {"end_to_end": search}
    return rows
