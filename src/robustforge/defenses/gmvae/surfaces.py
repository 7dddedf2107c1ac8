"""What an attacker of the Gaussian-mixture VAE may differentiate.

============== ==================================================== ==============================================
surface        gradient of                                          who uses it
============== ==================================================== ==============================================
``encoder``    class scores -|f(x) - mu_c|^2; no detector at all     the paper's FGSM, MIM and PGD
``end_to_end`` the same scores; ``answer`` adds risk and both parts  attacks that evade the detector
``white_box``  scores of class, encoder threshold and decoder        the paper's Eqs. 10 and 11; any plain attack
               threshold in one                                      that must satisfy all three at once
``transfer``   the undefended classifier                             the oblivious attacker
============== ==================================================== ==============================================

All are judged by the selective classifier: class, both thresholds. Scores are plain squared distances: divided by the
components' variance they would saturate every softmax, with gradients that are exactly zero.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from robustforge.attacks.surfaces import Surface, transfer
from robustforge.nn.mixture_autoencoder import reconstruction_error
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

    end_to_end = Surface("end_to_end", scores, system, defense)
    return {
        "end_to_end": end_to_end,
        "encoder": Surface("encoder", scores, system, defense, answer=without_detector),
        "white_box": Surface("white_box", white_box, system, defense),
        "transfer": transfer(defense.undefended, end_to_end),
    }


def white_box_scores(defense: GaussianMixtureVAE, x: Tensor) -> Tensor:
    """Class scores -log(1 + penalty_c) with the penalty of Eq. 10 for each class as the target.

    penalty_c = (|x - g(f(x))|^2 / tau_dec)^a + ((mu_c - f(x))' Sigma_c^-1 (mu_c - f(x)) / tau_enc)^b.

    Args:
        defense: whose networks and thresholds.
        x: (B, C, H, W) images.

    Returns:
        (B, K) float32, at most 0.

    Notes:
        The logarithm changes no minimum and keeps the scores in a range where cross-entropy has gradients; attacks that
        want the penalty itself undo it. Eq. 10 is printed with the covariance where its inverse must stand: with
        ``paper_literal`` it is computed as printed. The exponents a, b > 1 are not given: 2.
    """
    a, b = defense.exponents
    z, detector = defense.encode(x), defense.detector
    error = reconstruction_error(x, defense.decoder(z))[:, None] / detector.tau_decoder
    distance = detector.all_mahalanobis(z, literal=defense.paper_literal) / detector.tau_encoder
    return -torch.log1p(error.pow(a) + distance.pow(b))


def gmvae_systems(defense: GaussianMixtureVAE) -> dict[str, dict[str, Surface]]:
    """Rows beside the defense: ``without_thresholds`` (accepts everything) and, where asked for, ``reclassified``.

    Notes:
        The reclassifying system is attacked through the direct path, which decides what it sees; the search for a
        latent is not differentiated.
    """
    encoder = gmvae_surfaces(defense)["encoder"]
    assert encoder.answer is not None
    # both are attacked where the selective classifier is under the paper's attacks: the same images for the same seed
    rows = {"without_thresholds": {"end_to_end": Surface("encoder", encoder.views, encoder.answer, defense)}}
    if defense.reclassification.mode != "none":
        again = Surface("encoder", encoder.views, lambda x, _: defense.reclassified(x), defense)
        rows["reclassified"] = {"end_to_end": again}
    return rows
