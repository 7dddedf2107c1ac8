"""HopSkipJump: walks along the boundary by the system's decisions alone (Chen et al. 2020, arXiv:1904.02144)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from robustforge.attacks.core.attack import BaseAttack
from robustforge.attacks.core.geometry import ascent_direction, l2_norm, per_sample
from robustforge.attacks.core.nearest import Nearest, bisect, check_norm
from robustforge.attacks.core.session import AttackSession
from robustforge.randomness import SampleRandom
from robustforge.ranges import PositiveFloat, PositiveInt
from robustforge.types import Norm, Threat

_GRAIN = (None, 1, 2, 4, 7, 14)  # side of the grid that starting noise is drawn on; None: every pixel its own
_HALVINGS = 25  # of a step: 2^-25 of a distance is no step any more in float32
_CHUNK = 50  # directions drawn under one address, whatever the batch is
_IMAGES = 2048  # in one pass


@dataclass(frozen=True)
class HopSkipJump(BaseAttack):
    """Boundary walk: estimates the boundary's normal from random probes, steps along it, returns to the boundary.

    Attributes:
        steps: of the walk.
        probes: directions asked about in the first step; step t asks about ``probes * sqrt(t)``.
        max_probes: and never more than this.
        init_tries: draws of starting noise before an image is given up.
        gamma: theta, the precision of the bisection, is ``gamma / P^1.5`` for L2 and ``gamma / P^2`` for L-infinity
            (P pixels; the paper's d).
        norm: ``l2``, ``linf``, or None for the threat's.

    Raises:
        UserError: settings under which it would do nothing.

    Notes:
        The system is asked for its decision only (wrong and accepted), never for logits or gradients. Starting noise is
        the paper's uniform noise and, in turn, the same on coarser grids, since many networks answer pixel noise with
        one and the same class; it is then blended with the image. A start that no draw finds leaves the image as it is.
    """

    name: str = "hop_skip_jump"
    steps: PositiveInt = 40
    probes: PositiveInt = 100
    max_probes: PositiveInt = 10_000
    init_tries: PositiveInt = 100
    gamma: PositiveFloat = 1.0
    norm: Norm | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_norm(self.name, self.norm, self.norms)

    def perturb(self, session: AttackSession, seed: int) -> Tensor:
        """See :class:`robustforge.attacks.core.attack.BaseAttack`."""
        nearest = Nearest(session, self.norm)
        self._start(session, nearest, SampleRandom(seed, self.name))
        rows = ((nearest.distance > 0) & nearest.distance.isfinite()).nonzero().flatten()
        x_adv = nearest.x_adv[rows]
        if len(rows):
            x_adv = self._to_boundary(session, rows, x_adv)
        for step in range(1, self.steps + 1 if len(rows) else 1):
            nearest.offer(x_adv, rows, torch.ones_like(rows, dtype=torch.bool))
            normal = self._normal(session, rows, x_adv, step, SampleRandom(seed, self.name, step))
            x_adv = self._jump(session, rows, x_adv, normal, step)
            x_adv = self._to_boundary(session, rows, x_adv)
        nearest.offer(x_adv, rows, torch.ones_like(rows, dtype=torch.bool))
        return nearest.result()

    def _linf(self, session: AttackSession) -> bool:
        return (self.norm or session.threat.norm) == "linf"

    def _start(self, session: AttackSession, nearest: Nearest, random: SampleRandom) -> None:
        """Keeps of each image the first draw of noise that fools."""
        rows, shape = nearest.standing(), session.x.shape[1:]
        for number in range(self.init_tries):
            if not len(rows):
                return
            grain = _GRAIN[number % len(_GRAIN)]
            size = shape if grain is None else (shape[0], min(grain, shape[1]), min(grain, shape[2]))
            noise = F.interpolate(random.uniform(session.index[rows], size, stream=number), shape[1:])
            nearest.offer(noise, rows, torch.ones_like(rows, dtype=torch.bool))
            rows = rows[nearest.distance[rows].isinf()]

    def _between(self, session: AttackSession, rows: Tensor, x_adv: Tensor, share: Tensor) -> Tensor:
        """``share`` (n,) of the way to ``x_adv``: along the line for L2, in a box of that share for L-infinity."""
        clean = session.x[rows]
        if not self._linf(session):
            return torch.lerp(clean, x_adv, per_sample(share, clean))
        delta = x_adv - clean
        limit = per_sample(share * delta.flatten(1).abs().amax(1), clean)
        return clean + torch.min(torch.max(delta, -limit), limit)

    def _to_boundary(self, session: AttackSession, rows: Tensor, x_adv: Tensor) -> Tensor:
        """Bisection (Algorithm 1): the nearest point on the way to the clean image that still fools, to theta."""
        pixels = x_adv[0].numel()
        halvings = math.ceil(math.log2(pixels ** (2 if self._linf(session) else 1.5) / self.gamma))
        halvings = min(max(halvings, 1), 24)  # float32 holds no finer share
        high = bisect(lambda share: session.fools(self._between(session, rows, x_adv, share), rows), rows, halvings)
        return torch.where(per_sample(high < 1, x_adv), self._between(session, rows, x_adv, high), x_adv)

    def _normal(self, session: AttackSession, rows: Tensor, x_adv: Tensor, step: int, random: SampleRandom) -> Tensor:
        """Estimate of the boundary's normal, toward fooling (Eq. 16), of unit length; signs for L-infinity."""
        probes = min(int(self.probes * math.sqrt(step)), self.max_probes)
        reach = self._reach(session, rows, x_adv, step)
        parts = torch.split(torch.arange(len(rows), device=rows.device), max(1, _IMAGES // _CHUNK))
        return torch.cat([self._estimate(session, rows[p], x_adv[p], reach[p], probes, random) for p in parts])

    def _reach(self, session: AttackSession, rows: Tensor, x_adv: Tensor, step: int) -> Tensor:
        """(n,) length of the probes: sqrt(P) * theta * distance for L2, P * theta * distance for L-infinity."""
        if step == 1:
            return torch.full((len(rows),), 0.1, device=rows.device)
        pixels, delta = x_adv[0].numel(), (x_adv - session.x[rows]).flatten(1)
        # both come to gamma / P times the distance
        return self.gamma / pixels * (delta.abs().amax(1) if self._linf(session) else l2_norm(delta))

    def _estimate(
        self, session: AttackSession, rows: Tensor, x_adv: Tensor, reach: Tensor, probes: int, random: SampleRandom
    ) -> Tensor:
        """See :meth:`_normal`, for images few enough for one pass a chunk of probes."""
        agreed, plain = torch.zeros_like(x_adv), torch.zeros_like(x_adv)
        votes = torch.zeros(len(rows), device=rows.device)
        length = per_sample(reach, x_adv[:, None])
        for begin in range(0, probes, _CHUNK):
            count = min(_CHUNK, probes - begin)
            size = (count, *x_adv.shape[1:])
            index = session.index[rows]
            noise = (
                2 * random.uniform(index, size, begin) - 1 if self._linf(session) else random.normal(index, size, begin)
            )
            noise = noise / torch.linalg.vector_norm(noise, dim=(2, 3, 4), keepdim=True)
            probe = (x_adv[:, None] + length * noise).clamp(0, 1)
            fooled = session.fools(probe.flatten(0, 1), rows.repeat_interleave(count))
            sign = torch.where(fooled, 1.0, -1.0).view(len(rows), count)
            # what the box left of the direction; its length does not matter
            moved = (probe - x_adv[:, None]) / length
            agreed += torch.einsum("np,np...->n...", sign, moved)
            plain += moved.sum(1)
            votes += sign.sum(1)
        mean = votes / probes
        # the mean is a baseline that lowers the variance, except where every probe agrees and it would leave nothing
        mean = torch.where(mean.abs() == 1, 0.0, mean)
        normal = agreed - per_sample(mean, plain) * plain
        return ascent_direction(normal, Threat("linf" if self._linf(session) else "l2", 1.0))

    def _jump(self, session: AttackSession, rows: Tensor, x_adv: Tensor, normal: Tensor, step: int) -> Tensor:
        """The longest step distance / sqrt(t) / 2^k along the normal (n, C, H, W) that still fools."""
        delta = (x_adv - session.x[rows]).flatten(1)
        stride = (delta.abs().amax(1) if self._linf(session) else l2_norm(delta)) / math.sqrt(step)
        result, left = x_adv.clone(), torch.arange(len(rows), device=rows.device)
        for _ in range(_HALVINGS):
            there = (x_adv[left] + per_sample(stride[left], normal) * normal[left]).clamp(0, 1)
            fooled = session.fools(there, rows[left])
            result[left[fooled]] = there[fooled]
            left = left[~fooled]
            if not len(left):
                break
            stride = stride / 2
        return result
