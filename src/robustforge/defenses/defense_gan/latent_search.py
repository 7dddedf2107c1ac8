"""Projection on a generator's range: gradient descent in its latent space, all restarts of all images in one batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from robustforge.hints import check_fields
from robustforge.ranges import NonNegativeFloat, PositiveFloat, PositiveInt, Share, ShareBelowOne

Generate = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class LatentSearch:
    """How z* = argmin |G(z) - x|^2 is searched (Samangouei et al. 2018, arXiv:1805.06605).

    Attributes:
        restarts: R starts an image; the best end counts.
        steps: L gradient steps a restart.
        lr: step size on the mean squared error.
        momentum: heavy ball.
        decay_at: share of the steps after which ``lr`` is divided by ten.
        tolerance: mean squared error, in squared pixel units, at which an image is done: all of its restarts leave the
            batch. 0 runs every step.
        rows: most (image, restart) pairs in one batch, which bounds the memory.

    Raises:
        UserError: nothing to search, or values out of range.
    """

    restarts: PositiveInt = 10
    steps: PositiveInt = 200
    lr: PositiveFloat = 10.0
    momentum: ShareBelowOne = 0.7
    decay_at: Share = 0.8
    tolerance: NonNegativeFloat = 0.0
    rows: PositiveInt = 5120

    def __post_init__(self) -> None:
        check_fields(self)

    def rate(self, step: int) -> float:
        """Step size of one step."""
        return self.lr if step < self.decay_at * self.steps else 0.1 * self.lr


def squared_error(generated: Tensor, x: Tensor) -> Tensor:
    """Mean squared error of each image, (B, C, H, W) twice -> (B,)."""
    return (generated - x).square().flatten(1).mean(1)


def search(generate: Generate, x: Tensor, start: Tensor, settings: LatentSearch) -> Tensor:
    """The best latent of every image.

    Args:
        generate: (B, d) -> (B, C, H, W).
        x: (B, C, H, W).
        start: (B, R, d) first latents.
        settings: how to search.

    Returns:
        (B, d), detached. What an image gets does not depend on the others in the batch.
    """
    images = max(1, settings.rows // start.shape[1])
    parts = [
        _search(generate, *part, settings)
        for part in zip(torch.split(x, images), torch.split(start, images), strict=True)
    ]
    return torch.cat(parts) if parts else start[:, 0]


def _search(generate: Generate, x: Tensor, start: Tensor, settings: LatentSearch) -> Tensor:
    count, restarts, _ = start.shape
    with torch.inference_mode(False), torch.enable_grad():
        target = x.detach().clone()
        z = start.detach().flatten(0, 1).clone()
        rows = torch.arange(count, device=z.device).repeat_interleave(restarts)
        ends, errors, place = z.clone(), torch.empty(len(z), device=z.device), torch.arange(len(z), device=z.device)
        velocity = torch.zeros_like(z)
        for step in range(settings.steps):
            leaf = z.requires_grad_(True)
            error = squared_error(generate(leaf), target[rows])
            (gradient,) = torch.autograd.grad(error.sum(), leaf)
            z, error = z.detach(), error.detach().float()
            keep = _unfinished(error, rows, count, settings.tolerance)
            if keep is not None:
                # what leaves is written down as it stands; survivors are overwritten later
                ends[place], errors[place] = z, error
                z, velocity, gradient, rows, place = (t[keep] for t in (z, velocity, gradient, rows, place))
                if not len(rows):
                    break
            velocity = settings.momentum * velocity + gradient
            z = z - settings.rate(step) * velocity
        if len(rows):
            with torch.no_grad():
                ends[place], errors[place] = z, squared_error(generate(z), target[rows]).float()
    best = errors.view(count, restarts).argmin(1)
    return ends.view(count, restarts, -1)[torch.arange(count, device=best.device), best]


def _unfinished(error: Tensor, rows: Tensor, count: int, tolerance: float) -> Tensor | None:
    """Positions of images none of whose restarts is there yet; None when that is all of them."""
    reached = error <= tolerance
    if not tolerance or not bool(reached.any()):
        return None
    done = torch.zeros(count, dtype=torch.bool, device=rows.device)
    done[rows[reached]] = True
    return (~done[rows]).nonzero().flatten()


def one_more_step(generate: Generate, x: Tensor, z: Tensor, rate: float) -> Tensor:
    """G after one more gradient step from ``z``, differentiable in ``x``.

    Args:
        generate: (B, d) -> (B, C, H, W).
        x: (B, C, H, W).
        z: (B, d), taken as constant.
        rate: step size on the mean squared error.

    Returns:
        (B, C, H, W). Its derivative in x is 2 rate J J^T / n, with J the generator's Jacobian at z and n the number of
        pixels: what is left of the projection's derivative when only the last of the search's steps is unrolled.
    """
    with torch.enable_grad():
        leaf = z.detach().requires_grad_(True)
        error = squared_error(generate(leaf), x)
        (gradient,) = torch.autograd.grad(error.sum(), leaf, create_graph=True)
        return generate(z.detach() - rate * gradient)
