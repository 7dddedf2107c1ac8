"""What the Gaussian-mixture VAE draws: class by class, beside reconstructions, and how far from the data it is."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from robustforge.attacks.core.surface import Surface
from robustforge.data.resident import unit_pixels
from robustforge.defenses.figures import Figure, Picture, Scene
from robustforge.defenses.gmvae.frechet import CHUNK, features, frechet_distance, inception_distance
from robustforge.defenses.gmvae.pairs import converged, reconstructions
from robustforge.defenses.gmvae.selective import SelectiveClassifier
from robustforge.randomness import SampleRandom


def gmvae_figures(
    classifier: SelectiveClassifier, variance: float, undefended: nn.Module, white_box: Surface, fid: bool
) -> dict[str, Figure]:
    """The figures of one defense, by name; ``white_box`` is the surface of the paper's attacks."""

    def rebuild(x: Tensor) -> Tensor:
        rebuilt: Tensor = classifier.decoder(classifier.encode(x)).float()
        return rebuilt

    draw = partial(generate, classifier, variance)
    return {
        "generation": lambda scene: generation(scene, draw, rebuild, undefended, fid),
        "reconstructions": lambda scene: reconstructions(scene, classifier),
        "white_box_pairs": lambda scene: converged(scene, classifier, white_box),
    }


def generate(classifier: SelectiveClassifier, variance: float, labels: Tensor, index: Tensor, seed: int) -> Tensor:
    """Images (B, C, H, W) decoded from draws of the components of classes ``labels`` (B,).

    Args:
        classifier: its means and decoder.
        variance: of the components, latent units squared.
        labels: (B,) classes.
        index: (B,) sample numbers, which address the draws.
        seed: of the draws.
    """
    noise = SampleRandom(seed, "gmvae/generate").normal(index, (classifier.latent,))
    images: Tensor = classifier.decoder(classifier.detector.means[labels] + variance**0.5 * noise).float()
    return images


@torch.no_grad()
def generation(
    scene: Scene,
    draw: Callable[[Tensor, Tensor, int], Tensor],
    rebuild: Callable[[Tensor], Tensor],
    undefended: nn.Module,
    fid: bool = False,
    count: int = 10_000,
) -> Picture:
    """Samples of the first ten classes beside reconstructions of test images, and the samples' distance to the data.

    Args:
        scene: its first test images are rebuilt; its training images are what samples are compared with.
        draw: (classes (B,), sample numbers (B,), seed) -> new images (B, C, H, W).
        rebuild: (B, C, H, W) -> (B, C, H, W).
        undefended: a classifier (B, C, H, W) -> (B, K).
        fid: measure the FID too.
        count: samples, and training images, behind the distance (at most as many as there are).

    Returns:
        With ``frechet_distance`` of samples to training images and ``frechet_floor``, that between two halves of the
        training images, both in the features of the undefended classifier, and ``fid`` where it is asked for.

    Raises:
        UserError: the FID is asked for and its network cannot be had.

    Notes:
        Not the FID: that needs the weights of an Inception network (see :func:`inception_distance`). Distances in the
        features of one classifier compare two models on one data set, and nothing else.
    """
    data, seed, device = scene.data, scene.seed, scene.device
    shown, each, count = min(10, data.num_classes), 8, min(count, len(data.train))
    parts = torch.split(torch.arange(count, device=device), CHUNK)
    drawn = [draw(index % data.num_classes, index, seed).clamp(0, 1) for index in parts]
    real = [unit_pixels(part.to(device)) for part in torch.split(data.train.images[:count], CHUNK)]
    index = torch.arange(shown * each, device=device)
    samples, (clean, _) = draw(index // each, index, seed), scene.images(10)
    arrays = {"samples": samples.view(shown, each, *samples.shape[1:]), "clean": clean, "rebuilt": rebuild(clean)}
    found = {"fid": inception_distance(torch.cat(real), torch.cat(drawn))} if fid else {}
    known, new = (torch.cat([features(undefended, part) for part in images]) for images in (real, drawn))
    found |= {
        "frechet_distance": frechet_distance(known, new),
        "frechet_floor": frechet_distance(known[::2], known[1::2]),
    }
    return Picture("samples", {name: value.clamp(0, 1) for name, value in arrays.items()}, found)
