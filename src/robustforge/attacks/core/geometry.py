"""The ball an adversarial example lives in: starts, steps, projections and distances, for every norm."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from robustforge.attacks.core.sparse import (
    l0_step,
    l1_step,
    project_l0,
    project_l1,
    random_l1,
    random_places,
)
from robustforge.randomness import SampleRandom
from robustforge.types import COUNTS, Threat

_TINY = 1e-12


def per_sample(values: Tensor, like: Tensor) -> Tensor:
    """Views (B,) ``values`` so that they broadcast over ``like`` (B, ...)."""
    return values.view(-1, *([1] * (like.dim() - 1)))


def l2_norm(x: Tensor) -> Tensor:
    """Euclidean norm of each sample, (B,)."""
    norm: Tensor = torch.linalg.vector_norm(x.flatten(1), dim=1)
    return norm


def l1_norm(x: Tensor) -> Tensor:
    """Sum of absolute values of each sample, (B,), never 0 so that one may divide by it."""
    return x.flatten(1).abs().sum(1).clamp_min(torch.finfo(x.dtype).tiny)


def linf_norm(x: Tensor) -> Tensor:
    """Largest absolute value of each sample, (B,)."""
    return x.flatten(1).abs().amax(dim=1)


def l0_norm(x: Tensor) -> Tensor:
    """Number of values of each sample that are not 0, (B,) float."""
    return (x.flatten(1) != 0).sum(1).to(x.dtype)


def l0_pixels_norm(x: Tensor) -> Tensor:
    """Number of positions of each image (B, C, H, W) at which any channel is not 0, (B,) float."""
    return (x != 0).any(1).flatten(1).sum(1).to(x.dtype)


NORMS: dict[str, Callable[[Tensor], Tensor]] = {
    "l2": l2_norm,
    "linf": linf_norm,
    "l1": lambda x: x.flatten(1).abs().sum(1),
    "l0": l0_norm,
    "l0_pixels": l0_pixels_norm,
}


def project(x_adv: Tensor, x: Tensor, threat: Threat) -> Tensor:
    """Nearest point of the ball around ``x``, then of [0, 1] (L1 and L0: of both at once); both (B, C, H, W)."""
    if threat.norm == "linf":
        return torch.min(torch.max(x_adv, x - threat.eps), x + threat.eps).clamp(0, 1)
    if threat.norm == "l1":
        return project_l1(x_adv, x, threat.eps)
    if threat.norm in COUNTS:
        return project_l0(x_adv, x, threat.eps, threat.norm == "l0_pixels")
    delta = x_adv - x
    scale = (threat.eps / l2_norm(delta).clamp_min(_TINY)).clamp(max=1.0)
    return (x + delta * per_sample(scale, delta)).clamp(0, 1)


def limits(x: Tensor, threat: Threat) -> tuple[Tensor, Tensor] | None:
    """Lowest and highest pixels (B, C, H, W) of an L-infinity ball within [0, 1]; None for others, which are no box."""
    if threat.norm != "linf":
        return None
    return (x - threat.eps).clamp_(min=0), (x + threat.eps).clamp_(max=1)


def projected_step_(
    current: Tensor, gradient: Tensor, size: float, x: Tensor, threat: Threat, box: tuple[Tensor, Tensor] | None
) -> Tensor:
    """One projected ascent step, overwriting ``gradient``: fewer passes through memory than its parts.

    Args:
        current: (B, C, H, W) iterates.
        gradient: (B, C, H, W), lost.
        size: length of the step in the threat's norm.
        x: (B, C, H, W) clean images.
        threat: the ball.
        box: what :func:`limits` answers for ``x`` and ``threat``.
    """
    if threat.norm == "l1":  # the few values that a step moves must have room to move
        gradient.masked_fill_(torch.where(gradient > 0, current >= 1, current <= 0), 0.0)
    if box is None:
        return project(current + size * ascent_direction(gradient, threat), x, threat)
    return torch.clamp(gradient.sign_().mul_(size).add_(current), *box)


def ascent_direction(gradient: Tensor, threat: Threat) -> Tensor:
    """Ascent direction: the sign for L-infinity, the normalized gradient for L2 and, by its mean, for L0.

    L1 takes the signs of the largest entries; see :mod:`robustforge.attacks.core.sparse`.
    """
    if threat.norm == "linf":
        return gradient.sign()
    if threat.norm == "l1":
        return l1_step(gradient)
    if threat.norm in COUNTS:
        return l0_step(gradient, threat.eps)
    # confident networks' gradients are so small that their squares, or a floor under their norm, would shorten it
    gradient = gradient / per_sample(linf_norm(gradient).clamp_min(torch.finfo(gradient.dtype).tiny), gradient)
    return gradient / per_sample(l2_norm(gradient).clamp_min(_TINY), gradient)


def random_start(x: Tensor, index: Tensor, threat: Threat, random: SampleRandom) -> Tensor:
    """A uniform point of the ball around ``x`` (B, C, H, W), clipped to [0, 1]; for counts new values."""
    shape = x.shape[1:]
    if threat.norm in COUNTS:
        places = random_places(x, index, threat.eps, threat.norm == "l0_pixels", random)
        return torch.where(places, random.uniform(index, shape), x)
    if threat.norm == "linf":
        noise = (2 * random.uniform(index, shape) - 1) * threat.eps
    else:
        direction = random_sign(x, index, threat, random)
        radius = threat.eps * random.uniform(index, (1,), stream=1).pow(1 / x[0].numel())
        noise = direction * per_sample(radius.flatten(), x)
    return (x + noise).clamp(0, 1)


def random_sign(x: Tensor, index: Tensor, threat: Threat, random: SampleRandom) -> Tensor:
    """A random direction like ``x`` (B, C, H, W): signs for L-infinity and for a count, a unit vector for L2 and L1."""
    if threat.norm == "l1":
        return random_l1(x, index, random)
    if threat.norm in COUNTS:
        places = random_places(x, index, threat.eps, threat.norm == "l0_pixels", random)
        return torch.where(random.uniform(index, x.shape[1:]) < 0.5, -1.0, 1.0) * places
    if threat.norm == "linf":
        return torch.where(random.uniform(index, x.shape[1:]) < 0.5, -1.0, 1.0)
    direction = random.normal(index, x.shape[1:])
    return direction / per_sample(l2_norm(direction).clamp_min(_TINY), x)


def inside(x_adv: Tensor, x: Tensor, threat: Threat, slack: float = 1e-5) -> Tensor:
    """(B,) bool: within the ball and within [0, 1], up to float32 rounding ``slack`` (relative above 1)."""
    distance = NORMS[threat.norm](x_adv - x)
    in_range = (x_adv.flatten(1).amin(1) >= 0) & (x_adv.flatten(1).amax(1) <= 1)
    return (distance <= threat.eps + slack * max(1.0, threat.eps)) & in_range
