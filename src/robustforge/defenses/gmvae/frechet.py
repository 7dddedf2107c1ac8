"""How far drawn images are from real ones: distances of the Gaussians fitted to their features."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robustforge.types import UserError

CHUNK = 512  # images at a time


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
            "The FID needs the package torch-fidelity and the Inception weights that it downloads: install "
            "robustforge[fid] where there is a network, or go by frechet_distance, which needs neither."
        ) from error
    for images, is_real in ((real, True), (drawn, False)):
        for part in torch.split(images, CHUNK):
            metric.update(part.expand(-1, 3, -1, -1) if part.shape[1] == 1 else part, real=is_real)
    return float(metric.compute())


def _covariance(values: Tensor) -> Tensor:
    centered = values.double() - values.double().mean(0)
    return centered.T @ centered / (len(values) - 1)


def _square_root(matrix: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    root: Tensor = vectors @ torch.diag(values.clamp(min=0).sqrt()) @ vectors.T
    return root
