"""Square's random moves: stripes and windows of +-eps for L-infinity, windows of moved mass for L2 and L1.

Every sample draws its own; windows are gathered and scattered, so that a move costs its window and not the image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from robustforge.attacks.core.geometry import l2_norm, per_sample
from robustforge.attacks.core.sparse import project_l1
from robustforge.randomness import SampleRandom
from robustforge.types import Norm

DRAWS = 5  # uniform numbers a proposal takes, besides one a channel: two corners and the kernel's orientation
_TINY = 1e-12
Start = Callable[[Tensor, Tensor, SampleRandom, float], Tensor]
Propose = Callable[[Tensor, Tensor, Tensor, int, float], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Moves:
    """Proposals of one size: (best images, clean ones, draws) -> (proposals, positions that they change).

    Attributes:
        propose: see :func:`linf_propose`.
        side: of the window, in pixels.
        eps: budget.
    """

    propose: Propose
    side: int
    eps: float

    def __call__(self, x: Tensor, clean: Tensor, draw: Tensor) -> tuple[Tensor, Tensor]:
        """Of images (n, C, H, W) and numbers (n, 5 + C)."""
        return self.propose(x, clean, draw, self.side, self.eps)


def linf_start(clean: Tensor, index: Tensor, random: SampleRandom, eps: float) -> Tensor:
    """Vertical stripes of +-eps, one sign a channel and column (Sec. 3.2); all (n, C, H, W)."""
    signs = _sign(random.uniform(index, (clean.shape[1], 1, clean.shape[3])))
    return (clean + eps * signs).clamp(0, 1)


def linf_propose(x: Tensor, clean: Tensor, draw: Tensor, side: int, eps: float) -> tuple[Tensor, Tensor]:
    """One window a sample, set to +-eps with one sign a channel (Algorithm 2).

    Args:
        x: (n, C, H, W) best images so far.
        clean: (n, C, H, W).
        draw: (n, 5 + C) uniform numbers.
        side: of the window, in pixels.
        eps: budget.

    Returns:
        (proposals (m, C, H, W), (m,) positions of the samples that they change).
    """
    window = _window(x, draw[:, 0], draw[:, 1], side)
    values = (clean[window] + eps * _sign(draw[:, DRAWS:, None, None])).clamp(0, 1)
    changed = (values != x[window]).flatten(1).any(1).nonzero().flatten()
    proposal = x[changed]
    proposal[_window(proposal, draw[changed, 0], draw[changed, 1], side)] = values[changed]
    return proposal, changed


def l2_start(clean: Tensor, index: Tensor, random: SampleRandom, eps: float) -> Tensor:
    """A grid of 5 x 5 (or a few more) tiles of the kernel with random signs, of norm eps (Sec. 3.3)."""
    channels, height, width = clean.shape[1:]
    side = max(min(height, width) // 5, 1)
    down, across = height // side, width // side
    signs = _sign(random.uniform(index, (channels, down, across)))
    tiles = torch.kron(signs, kernel(side).to(clean.device))
    top, left = (height - down * side) // 2, (width - across * side) // 2
    delta = torch.zeros_like(clean)
    delta[:, :, top : top + down * side, left : left + across * side] = tiles
    return _at_distance(clean, delta, eps)


def l2_propose(x: Tensor, clean: Tensor, draw: Tensor, side: int, eps: float) -> tuple[Tensor, Tensor]:
    """Moves the perturbation of one window into another, with what is left of the budget (Algorithm 3).

    See :func:`linf_propose`; here every sample changes. Windows are odd and 3 wide or more, if the image allows.
    """
    side = min(max(side, 3) | 1, *x.shape[2:])
    delta = x - clean
    window, other = _window(x, draw[:, 0], draw[:, 1], side), _window(x, draw[:, 2], draw[:, 3], side)
    old = delta[window]
    before = delta.square().sum((2, 3), keepdim=True)
    delta[other] = 0.0
    delta[window] = 0.0
    freed = (before - delta.square().sum((2, 3), keepdim=True)).clamp(min=0)
    unused = (eps**2 - before.sum(1, keepdim=True)).clamp(min=0) / x.shape[1]
    shape = kernel(side).to(x.device)
    shape = torch.where(per_sample(draw[:, 4] < 0.5, x), shape, shape.T)
    new = shape * _sign(draw[:, DRAWS:, None, None]) + old / _norm(old)
    delta[window] = new / _norm(new) * (unused + freed).sqrt()
    return _at_distance(clean, delta, eps), torch.arange(len(x), device=x.device)


def l1_start(clean: Tensor, index: Tensor, random: SampleRandom, eps: float) -> Tensor:
    """The same tiles projected onto the L1 ball within [0, 1] (Croce & Hein 2021, arXiv:2103.01208, Appendix)."""
    return project_l1(l2_start(clean, index, random, eps), clean, eps)


def l1_propose(x: Tensor, clean: Tensor, draw: Tensor, side: int, eps: float) -> tuple[Tensor, Tensor]:
    """Moves a window's perturbation as in L2, with mass counted in L1; see :func:`l2_propose`."""
    side = min(max(side, 3) | 1, *x.shape[2:])
    delta = x - clean
    window, other = _window(x, draw[:, 0], draw[:, 1], side), _window(x, draw[:, 2], draw[:, 3], side)
    old = delta[window]
    before = delta.abs().sum((2, 3), keepdim=True)
    delta[other] = 0.0
    delta[window] = 0.0
    freed = (before - delta.abs().sum((2, 3), keepdim=True)).clamp(min=0)
    unused = (eps - before.sum(1, keepdim=True)).clamp(min=0) / x.shape[1]
    shape = kernel(side).to(x.device)
    shape = torch.where(per_sample(draw[:, 4] < 0.5, x), shape, shape.T)
    new = shape * _sign(draw[:, DRAWS:, None, None]) + old / _mass(old)
    delta[window] = new / _mass(new) * (unused + freed)
    return project_l1(clean + delta, clean, eps), torch.arange(len(x), device=x.device)


def kernel(side: int) -> Tensor:
    """(side, side) of unit norm: a positive bump above a negative one (Sec. 3.3, Eq. 2)."""
    upper = _bump(side // 2, side)
    both = torch.cat([upper, -_bump(side - side // 2, side)])
    return both / l2_norm(both[None]).clamp_min(_TINY)


def _bump(height: int, width: int) -> Tensor:
    """Falls off from the middle in squares: sum of 1 / k**2 from a pixel's ring outwards, (height, width)."""
    rows, columns = torch.arange(height), torch.arange(width)
    ring = torch.maximum((rows - height // 2).abs()[:, None], (columns - width // 2).abs()[None])
    steps = 1 / torch.arange(1, max(height, width) // 2 + 2).float().square()
    outwards = steps.flip(0).cumsum(0).flip(0)
    return outwards[ring]


def _window(x: Tensor, down: Tensor, across: Tensor, side: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Indices of each sample's own window, for uniform numbers ``down`` and ``across`` (n,)."""
    span = torch.arange(side, device=x.device)
    top = (down * (x.shape[2] - side + 1)).long()[:, None, None, None] + span[:, None]
    left = (across * (x.shape[3] - side + 1)).long()[:, None, None, None] + span
    sample, channel = (torch.arange(size, device=x.device) for size in x.shape[:2])
    return sample[:, None, None, None], channel[:, None, None], top, left


def _at_distance(clean: Tensor, delta: Tensor, eps: float) -> Tensor:
    return (clean + delta * per_sample(eps / l2_norm(delta).clamp_min(_TINY), delta)).clamp(0, 1)


def _sign(draw: Tensor) -> Tensor:
    return torch.where(draw < 0.5, -1.0, 1.0)


def _norm(window: Tensor) -> Tensor:
    """Of each sample's channels, (n, C, 1, 1), never 0."""
    norm: Tensor = torch.linalg.vector_norm(window, dim=(2, 3), keepdim=True)
    return norm.clamp_min(_TINY)


def _mass(window: Tensor) -> Tensor:
    """Sum of absolute values of each sample's channels, (n, C, 1, 1), never 0."""
    return window.abs().sum((2, 3), keepdim=True).clamp_min(_TINY)


MOVES: dict[Norm, tuple[Start, Propose]] = {
    "linf": (linf_start, linf_propose),
    "l2": (l2_start, l2_propose),
    "l1": (l1_start, l1_propose),
}
