"""What adversarial training may add against overfitting: aligned gradients and perturbed weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from robustforge.attacks.core.geometry import random_start
from robustforge.randomness import SampleRandom
from robustforge.types import Batch, Threat

Network = Callable[[Tensor], Tensor]  # images (B, C, H, W) -> logits (B, K)


def gradient_misalignment(network: nn.Module, batch: Batch, threat: Threat, seed: int) -> Tensor:
    """GradAlign (Andriushchenko & Flammarion 2020, arXiv:2007.02617, Eq. 5).

    1 - cos(gradient of the loss at x, gradient at x + eta), eta uniform in the ball, averaged over the batch.

    Args:
        network: (B, C, H, W) -> (B, K), in training mode; its running statistics stay as they are.
        batch: clean images and labels.
        threat: whose ball eta is drawn from.
        seed: of eta.

    Returns:
        Scalar in [0, 2], differentiable in the network's parameters through the second gradient.

    Notes:
        The first gradient is held fixed, as in the authors' code. float32, because it is differentiated twice.
    """
    answer = unmoved(network, dict(network.named_parameters()))
    near = random_start(batch.x, batch.index, threat, SampleRandom(seed, "grad_align"))

    def gradient(x: Tensor, keep: bool) -> Tensor:
        leaf = x.detach().requires_grad_(True)
        (found,) = torch.autograd.grad(F.cross_entropy(answer(leaf), batch.y), leaf, create_graph=keep)
        return found.flatten(1)

    with torch.autocast(batch.x.device.type, enabled=False):
        here, there = gradient(batch.x, False), gradient(near, True)
        # gradients of a well-trained network are tiny: the usual floor of the norms would make them orthogonal
        return 1 - F.cosine_similarity(here, there, dim=1, eps=1e-20).mean()


def worst_weights(network: nn.Module, loss: Callable[[Network], Tensor], gamma: float) -> Network:
    """Adversarial weight perturbation (Wu et al. 2020, arXiv:2004.05884, Algorithm 1).

    Args:
        network: in training mode; its parameters and running statistics stay as they are.
        loss: of a network on the attacked batch.
        gamma: length of a layer's perturbation over that of its weights (paper: 0.01; 0.005 with TRADES).

    Returns:
        The network with every weight w moved to w + gamma |w| / |g| g, g the gradient of ``loss`` at w. Its answers are
        differentiable in w, and the gradient is that at the moved weights.

    Notes:
        One step, as in the paper. Biases and normalization layers keep their values, as in the authors' code.
    """
    parameters: dict[str, Tensor] = dict(network.named_parameters())
    moved = {name: w for name, w in parameters.items() if w.dim() > 1 and w.requires_grad}
    gradients = torch.autograd.grad(loss(unmoved(network, parameters)), list(moved.values()))
    for (name, w), g in zip(moved.items(), gradients, strict=True):
        length = g.norm()
        parameters[name] = w + torch.where(length > 0, gamma * w.detach().norm() / length, 0) * g
    return partial(functional_call, network, parameters)


def unmoved(network: nn.Module, parameters: Mapping[str, Tensor]) -> Network:
    """The network with the parameters given, whose passes leave its running statistics as they are."""
    buffers = {name: value.clone() for name, value in network.named_buffers()}
    return partial(functional_call, network, {**parameters, **buffers})
