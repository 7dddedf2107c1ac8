"""What a generative defense draws: class by class, beside reconstructions, and how far from the data it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from robustforge.data.datamodule import ImageData
from robustforge.data.resident import Split, unit_pixels
from robustforge.defenses.base import Defense
from robustforge.files import atomic_write
from robustforge.types import UserError

CHUNK = 512  # images at a time


@torch.no_grad()
def save_generation(
    defense: Defense, data: ImageData, path: Path, device: torch.device, seed: int = 0, count: int = 10_000
) -> dict[str, float]:
    """Writes samples and reconstructions as npz and measures the samples.

    Args:
        defense: trained, on ``device``.
        data: its first test images are rebuilt; its training images are what samples are compared with.
        path: file to write: ``samples`` (K, n, C, H, W) of the first ten classes, ``clean`` and ``rebuilt``
            (m, C, H, W).
        device: where it runs.
        seed: of the draws.
        count: samples, and training images, behind the distance (at most as many as there are).

    Returns:
        ``frechet_distance`` of samples to training images and ``frechet_floor``, that between two halves of the
        training images, both in the features of the undefended classifier, and ``fid`` where the defense asks for it;
        empty for defenses that generate nothing.

    Raises:
        UserError: the FID is asked for and its network cannot be had.

    Notes:
        Not the FID: that needs the weights of an Inception network (see :func:`inception_distance`). Distances in the
        features of one classifier compare two models on one data set, and nothing else.
    """
    if defense.generate(torch.zeros(1, dtype=torch.int64, device=device), _index(1, device), seed) is None:
        return {}
    count = min(count, len(data.train))
    samples = generated(defense, data.num_classes, count, seed, device)
    _save(defense, data, path, device, seed)
    found: dict[str, float] = {}
    if getattr(defense, "fid", False):
        found["fid"] = inception_distance(torch.cat(_images(data.train, count, device)), samples)
    network = getattr(defense, "undefended", None)
    if network is None:
        return found
    real = torch.cat([features(network, part) for part in _images(data.train, count, device)])
    drawn = torch.cat([features(network, part) for part in torch.split(samples, CHUNK)])
    return found | {
        "frechet_distance": frechet_distance(real, drawn),
        "frechet_floor": frechet_distance(real[::2], real[1::2]),
    }


def generated(defense: Defense, num_classes: int, count: int, seed: int, device: torch.device) -> Tensor:
    """(count, C, H, W) draws from the mixture, equally many of each class."""
    parts = []
    for index in torch.split(_index(count, device), CHUNK):
        images = defense.generate(index % num_classes, index, seed)
        assert images is not None
        parts.append(images.clamp(0, 1))
    return torch.cat(parts)


def features(network: nn.Module, x: Tensor) -> Tensor:
    """(B, d) float64 inputs of a classifier's last dense layer.

    Raises:
        UserError: a classifier without a dense layer.
    """
    dense = [module for module in network.modules() if isinstance(module, nn.Linear)]
    if not dense:
        raise UserError(
            "The quality of samples is measured before a classifier's last dense layer: choose a model with one."
        )
    seen: list[Tensor] = []
    handle = dense[-1].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    try:
        network(x)
    finally:
        handle.remove()
    return seen[0].flatten(1).double()


def frechet_distance(one: Tensor, other: Tensor) -> float:
    """Frechet distance of the Gaussians fitted to two sets of features (Heusel et al. 2017, arXiv:1706.08500, Eq. 6).

    Args:
        one: (N, d) features.
        other: (M, d) features.

    Returns:
        |m - m'|^2 + tr(C + C' - 2 (C C')^(1/2)), at least 0.

    Raises:
        ValueError: fewer than two images.
    """
    if min(len(one), len(other)) < 2:
        raise ValueError("A Frechet distance needs two images on either side.")
    root = _square_root(_covariance(one))
    cov = _covariance(other)
    # the eigenvalues of C C' are those of C^(1/2) C' C^(1/2), which is symmetric and needs no complex arithmetic
    cross = torch.linalg.eigvalsh(root @ cov @ root).clamp(min=0).sqrt().sum()
    shift = (one.double().mean(0) - other.double().mean(0)).square().sum()
    return max(0.0, float(shift + (root @ root).trace() + cov.trace() - 2 * cross))


def inception_distance(real: Tensor, drawn: Tensor) -> float:
    """The FID proper, by torchmetrics.

    Args:
        real: (N, C, H, W) images in [0, 1].
        drawn: (M, C, H, W) images in [0, 1].

    Raises:
        UserError: torch-fidelity, which brings the Inception network, is not installed, or its weights cannot be had.
    """
    from torchmetrics.image.fid import FrechetInceptionDistance

    try:
        metric = FrechetInceptionDistance(feature=2048, normalize=True).to(real.device)
    except (ModuleNotFoundError, OSError) as error:
        raise UserError(
            "The FID needs the package torch-fidelity and the Inception weights that it downloads: install it where "
            "there is a network, or go by frechet_distance, which needs neither."
        ) from error
    for images, is_real in ((real, True), (drawn, False)):
        for part in torch.split(images, CHUNK):
            metric.update(part.expand(-1, 3, -1, -1) if part.shape[1] == 1 else part, real=is_real)
    return float(metric.compute())


def _covariance(values: Tensor) -> Tensor:
    centerd = values.double() - values.double().mean(0)
    return centerd.T @ centerd / (len(values) - 1)


def _square_root(matrix: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    root: Tensor = vectors @ torch.diag(values.clamp(min=0).sqrt()) @ vectors.T
    return root


def _index(count: int, device: torch.device) -> Tensor:
    return torch.arange(count, device=device)


def _images(split: Split, count: int, device: torch.device) -> list[Tensor]:
    """The first ``count`` images in parts, [0, 1]; the split's order is arbitrary."""
    return [unit_pixels(part.to(device)) for part in torch.split(split.images[:count], CHUNK)]


def _save(defense: Defense, data: ImageData, path: Path, device: torch.device, seed: int) -> None:
    shown, each = min(10, data.num_classes), 8
    index = _index(shown * each, device)
    samples = defense.generate(index // each, index, seed)
    clean = _images(data.test, 10, device)[0]
    rebuilt = defense(clean).purified
    assert samples is not None
    arrays: dict[str, Tensor] = {
        "samples": samples.view(shown, each, *samples.shape[1:]),
        "clean": clean,
        "rebuilt": clean if rebuilt is None else rebuilt,
    }
    plain: dict[str, Any] = {name: value.clamp(0, 1).cpu().numpy() for name, value in arrays.items()}
    with atomic_write(path) as half:
        np.savez(half, **plain)
