"""PDPGD: as PDGD, with proximal steps for norms that have no gradient (Matyasko & Chau 2021, arXiv:2106.01538)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from robustforge.attacks.core.adam import Adam
from robustforge.attacks.core.attack import BaseAttack
from robustforge.attacks.core.duals import Duals
from robustforge.attacks.core.hinges import softened
from robustforge.attacks.core.nearest import Nearest, check_norm
from robustforge.attacks.core.session import AttackSession
from robustforge.attacks.pdgd import FINAL_STEP
from robustforge.ranges import NonNegativeInt, PositiveFloat, PositiveInt, Precision
from robustforge.types import Norm

_APPROACHES = 5  # in L1
_HALVINGS = 30  # of the bracket around the length of an L2 proximal step
_TINY = 1e-12
Proximal = Callable[[Tensor, Tensor, Tensor], Tensor]  # see :func:`proximal_l1`


@dataclass(frozen=True)
class PDPGD(BaseAttack):
    """Adam descends the constraint, a proximal step in Adam's own metric the distance; their weights ascend.

    Attributes:
        precision: ``float32``; bf16 blurs the boundary, and the perturbations found are 1 to 2 % larger.
        steps: gradient steps.
        step_size: Adam's first, in pixel units; it falls to a hundredth along a geometric sequence.
        halvings: of the way back to the boundary at the end, while the system is fooled (paper: 0).
        approaches: iterations toward the proximal point in Adam's metric; 0 computes it, None is 5 in L1 (as the
            paper's code) and 0 else.
        norm: ``l1``, ``l2``, ``linf``, or None for the threat's.

    Raises:
        UserError: settings under which it would do nothing.

    Notes:
        The paper approaches the proximal point in Adam's metric by a few iterations. Outside of L1 it is computed
        here, by sorting for L-infinity, by bisection for L2. In L1 the point itself sets values whose gradients have
        been small to 0 at once, and the perturbations found are larger than on the way to it.
    """

    norms = ("linf", "l2", "l1")
    name: str = "pdpgd"
    precision: Precision = "float32"
    steps: PositiveInt = 100
    step_size: PositiveFloat = 0.1
    halvings: NonNegativeInt = 6
    approaches: NonNegativeInt | None = None
    norm: Norm | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_norm(self.name, self.norm, self.norms)

    def perturb(self, session: AttackSession, seed: int) -> Tensor:
        """See :class:`robustforge.attacks.core.attack.BaseAttack`."""
        nearest = Nearest(session, self.norm)
        proximal, rows = PROXIMAL[nearest.name], nearest.standing()
        clean = x_adv = session.x[rows]
        objective = softened(session)
        adam, duals = Adam(clean), Duals(len(rows), self.steps, rows.device)
        for step in range(self.steps if len(rows) else 0):
            gradient, logits, _ = session.gradient(x_adv, rows, objective)
            fooled = nearest.offer(x_adv, rows, session.suspects(logits, rows))
            mean, scale = adam.moments(-gradient)
            stride = self.step_size * FINAL_STEP ** (step / self.steps)
            delta = (x_adv - stride * mean / scale).clamp(0, 1) - clean
            pull = stride * duals.distance / duals.constraint
            near = self._near(proximal, delta.flatten(1), scale.flatten(1), pull[:, None])
            x_adv = (clean + near.view_as(clean)).clamp(0, 1)
            duals.ascend(step, fooled)
        nearest.offer(x_adv, rows, torch.ones_like(rows, dtype=torch.bool))
        nearest.pull(rows, self.halvings)
        return nearest.result()

    def _near(self, proximal: Proximal, delta: Tensor, metric: Tensor, pull: Tensor) -> Tensor:
        """The proximal point (n, P), or what lies on the way to it (proximal Adam, arXiv:1910.10094)."""
        iterations = (_APPROACHES if proximal is proximal_l1 else 0) if self.approaches is None else self.approaches
        if not iterations:
            return proximal(delta, metric, pull)
        steepest = metric.amax(1, keepdim=True)
        z, even = delta, torch.ones_like(metric)
        for _ in range(iterations):
            z = proximal(z - metric / steepest * (z - delta), even, pull / steepest)
        return z


def proximal_l1(delta: Tensor, metric: Tensor, pull: Tensor) -> Tensor:
    """The z that minimizes sum metric (z - delta)^2 / 2 + pull |z|, all (n, P), ``pull`` (n, 1)."""
    return delta.sign() * (delta.abs() - pull / metric).clamp_min(0)


def proximal_l2(delta: Tensor, metric: Tensor, pull: Tensor) -> Tensor:
    """The same for the L2 norm of z, whose length solves |delta metric / (metric length + pull)| = 1."""
    low, high = torch.zeros_like(pull), torch.linalg.vector_norm(delta, dim=1, keepdim=True)
    for _ in range(_HALVINGS):
        length = (low + high) / 2
        longer = torch.linalg.vector_norm(delta * metric / (metric * length + pull), dim=1, keepdim=True) > 1
        low, high = torch.where(longer, length, low), torch.where(longer, high, length)
    shrunk: Tensor = delta * metric * high / (metric * high + pull).clamp_min(_TINY)
    return shrunk


def proximal_linf(delta: Tensor, metric: Tensor, pull: Tensor) -> Tensor:
    """The same for the largest |z|: sizes are cut at the height above which metric times excess sums to ``pull``."""
    size, order = delta.abs().sort(1, descending=True)
    weight = metric.gather(1, order)
    total, product = weight.cumsum(1), (weight * size).cumsum(1)
    above = product - total * size  # what lies above each size
    last = ((above <= pull).sum(1, keepdim=True) - 1).clamp_min(0)
    height = ((product.gather(1, last) - pull) / total.gather(1, last)).clamp_min(0)
    return delta.sign() * torch.minimum(delta.abs(), height)


PROXIMAL: dict[str, Proximal] = {"l1": proximal_l1, "l2": proximal_l2, "linf": proximal_linf}
