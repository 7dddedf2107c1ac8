"""FAB-T: walks along a decision boundary toward the clean image (Croce & Hein 2020, arXiv:1907.02044)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor

from robustforge.attacks.core.attack import BaseAttack
from robustforge.attacks.core.geometry import NORMS, per_sample, random_sign
from robustforge.attacks.core.nearest import Nearest
from robustforge.attacks.core.restarts import first_then_others, in_rounds
from robustforge.attacks.core.rivals import Order, goals, ranked_classes
from robustforge.attacks.core.session import AttackSession
from robustforge.attacks.core.survivors import Iterates, Survivors, hopeless
from robustforge.losses.classification import margin_targeted
from robustforge.randomness import SampleRandom
from robustforge.ranges import OpenShare, PositiveInt, Share
from robustforge.types import Norm, Threat

_NEWTON_STEPS = 100  # exact after a handful; the bound is for rounding at the last breakpoint
_MARKS = (10, 20, 40, 80, 160, 320, 640)  # iterations at which a run may give up, each after twice as many
_TINY = 1e-12


@dataclass
class _Walk(Iterates):
    """What a run carries."""

    clean: Tensor  # (m, C, H, W)
    goal: Tensor  # (m, 2) label and target class
    found: Tensor  # (m, C, H, W) nearest adversarial iterate, clean where there is none
    nearest: Tensor  # (m,) its distance, as all that follow
    nearest_before: Tensor  # the same when last reviewed
    value: Tensor  # of the boundary at x, where it is known; else infinite
    adversarial: Tensor  # bool, x

    def note_nearest(self, threat: Threat) -> Tensor:
        """Remembers the nearest adversarial iterates; (m,) bool: which iterates are adversarial inside the ball."""
        distance = NORMS[threat.norm](self.x - self.clean)
        better = self.adversarial & (distance < self.nearest)
        self.found = torch.where(per_sample(better, self.x), self.x, self.found)
        self.nearest = torch.where(better, distance, self.nearest)
        return self.adversarial & (distance <= threat.eps)


@dataclass(frozen=True)
class FAB(BaseAttack):
    """Minimum-norm attack; adversarial images outside the ball are not returned.

    Every step projects both the iterate and the clean image onto the linearized boundary between the label and one
    target class, goes a little beyond a mean of the two, and falls back toward the clean image once it is adversarial.

    Attributes:
        steps: iterations a run.
        restarts: starts; the first is the clean image, later ones are random points half the budget away.
        n_target_classes: how many wrong classes are aimed at, each in a run of its own.
        order: which of them come first: ``logits``, the likeliest, or ``malt``, those of the nearest linearized
            boundaries (arXiv:2407.02240).
        alpha_max: largest weight of the clean image's projection, in [0, 1].
        eta: overshoot beyond the boundary, 1 or more.
        beta: share of the perturbation kept after an adversarial iterate, in (0, 1).
        give_up: end runs whose nearest adversarial point would not come into the ball at the pace of their last half:
            not in the paper, quicker, and possibly weaker.
        early_stop: an image is done at its first adversarial iterate inside the ball; False searches for the nearest.

    Raises:
        UserError: settings under which it would do nothing.

    Notes:
        With ``early_stop`` the final search asks the one question that is left: whether the nearest adversarial point,
        pulled back onto the ball, still fools.
        In bf16 only gradients are computed; the boundary's value is that of the float32 pass that judged the iterate.
        Later restarts start half the budget away; the paper's half of the best distance so far may exceed it.
    """

    norms = ("linf", "l2", "l1")
    name: str = "fab_t"
    steps: PositiveInt = 100
    restarts: PositiveInt = 1
    n_target_classes: PositiveInt = 9
    order: Order = "logits"
    alpha_max: Share = 0.1
    eta: Annotated[float, Ge(1)] = 1.05
    beta: OpenShare = 0.9
    give_up: bool = False
    early_stop: bool = True

    def perturb(self, session: AttackSession, seed: int) -> Tensor:
        """See :class:`robustforge.attacks.core.attack.BaseAttack`."""
        classes, rows = ranked_classes(session, self.order, self.n_target_classes)
        lanes = classes.shape[1]

        def start(rows: Tensor, number: int) -> Tensor:
            x = session.x[rows]
            if number < lanes:
                return x
            noise = random_sign(x, session.index[rows], session.threat, SampleRandom(seed, self.name, number))
            return (x + session.threat.eps / 2 * noise).clamp(0, 1)

        nearest = None if self.early_stop else Nearest(session)

        def run(begin: Tensor, rows: Tensor, numbers: Sequence[int]) -> tuple[Tensor, Tensor]:
            ends, fooled = self._walk(session, begin, rows, goals(session, classes, rows, numbers))
            if nearest is None:
                return ends, fooled
            for found, whose, which in zip(*(each.chunk(len(numbers)) for each in (ends, rows, fooled)), strict=True):
                nearest.offer(found, whose, which)
            return ends, torch.zeros_like(fooled)  # the next round looks for nearer ones

        best = in_rounds(session, first_then_others(lanes, self.restarts), start, run, rows=rows)
        return best if nearest is None else nearest.result()

    def _walk(self, session: AttackSession, start: Tensor, rows: Tensor, goal: Tensor) -> tuple[Tensor, Tensor]:
        """(images (n, C, H, W): fooling ones in the ball, else clean ones; (n,) bool: which fooled)."""
        clean, threat = session.x[rows], session.threat
        runs, far = Survivors(session, rows, clean), torch.full((len(rows),), float("inf"), device=rows.device)
        s = _Walk(start, clean, goal, clean, far, far, -far, torch.zeros_like(rows, dtype=torch.bool))
        for number in runs.steps(self.steps):
            gradient, _, value = session.gradient(s.x, runs.rows, _toward, s.goal)
            value = torch.where(s.value.isfinite(), s.value, value)
            s.x = self._step(s.x, s.clean, gradient, value, threat)
            # a boundary cannot be found closer than its value is known: bf16 would cost 2 % of the distance
            logits = session.logits(s.x, runs.rows, exact=True)
            s.adversarial = session.suspects(logits, runs.rows)
            s.value = _toward(logits, s.goal).masked_fill(s.adversarial, float("-inf"))  # those move once more
            inside = s.note_nearest(threat)
            s = runs.judge(s, inside) if self.early_stop else s
            back = s.clean + self.beta * (s.x - s.clean)
            s.x = torch.where(per_sample(s.adversarial, back), back, s.x)
            if self.give_up and number + 1 in _MARKS:
                pace = threat.eps - s.nearest, threat.eps - s.nearest_before
                s.nearest_before = s.nearest
                s = runs.drop(s, hopeless(*pace, (number + 1) // 2, self.steps - number - 1))
        # pulled back onto the ball; runs that never were adversarial have nothing to pull
        pulled = s.clean + per_sample((threat.eps / s.nearest).clamp(max=1), s.x) * (s.found - s.clean)
        s.x = pulled.clamp(0, 1)
        runs.judge(s, s.nearest.isfinite())
        return runs.ends, runs.fooled

    def _step(self, x: Tensor, clean: Tensor, gradient: Tensor, value: Tensor, threat: Threat) -> Tensor:
        """One iterate (paper's Eq. 9): ``value`` and ``gradient`` of the boundary at ``x``."""
        offset = (gradient * (x - clean)).flatten(1).sum(1)
        own = to_hyperplane(x, gradient, -value, threat.norm)
        origin = to_hyperplane(clean, gradient, offset - value, threat.norm)
        far, near = NORMS[threat.norm](own), NORMS[threat.norm](origin)
        alpha = per_sample((far / (far + near).clamp_min(_TINY)).clamp(max=self.alpha_max), x)
        return ((1 - alpha) * (x + self.eta * own) + alpha * (clean + self.eta * origin)).clamp(0, 1)


def to_hyperplane(x: Tensor, normal: Tensor, rise: Tensor, norm: Norm) -> Tensor:
    """Smallest step from a point of the unit box onto a hyperplane, without leaving the box.

    Args:
        x: (B, ...) in [0, 1].
        normal: (B, ...) of the hyperplane.
        rise: (B,), the hyperplane is where ``normal . step == rise``.
        norm: in which the step is smallest.

    Returns:
        (B, ...). Where the box does not meet the hyperplane, the step to the box's nearest corner; 0 for a normal of 0.

    Notes:
        The minimizer moves pixel i by ``min(t * pace_i, room_i)`` in the direction that helps, with pace 1 for
        L-infinity and ``|normal_i|`` for L2. What that gains is concave and piecewise linear in t, so that Newton's
        method from t = 0 never overshoots and ends exactly, without sorting pixels. For L1 the steepest pixels move as
        far as they have room, one after the other.
    """
    shape = x.shape
    x, normal, size = x.flatten(1), normal.flatten(1), rise.abs()[:, None]
    # a gradient's scale means nothing here; without it squares of tiny ones would vanish
    scale = normal.abs().amax(1, keepdim=True).clamp_min(torch.finfo(normal.dtype).tiny)
    normal, size = normal / scale, size / scale
    direction = normal.sign() * rise.sign()[:, None]
    weight = normal.abs()
    room = torch.where(direction > 0, 1 - x, x)
    if norm == "l1":
        order = weight.argsort(1, descending=True)
        gain = (weight * room).gather(1, order)
        share = ((size - (gain.cumsum(1) - gain)) / gain.clamp_min(torch.finfo(gain.dtype).tiny)).clamp(0, 1)
        return (direction * room * torch.zeros_like(share).scatter(1, order, share)).view(shape)
    pace = torch.ones_like(weight) if norm == "linf" else weight
    slope_of = weight * pace
    t = torch.zeros_like(size)
    for _ in range(_NEWTON_STEPS):
        moved = torch.minimum(t * pace, room)
        missing = size - (weight * moved).sum(1, keepdim=True)
        slope = (slope_of * (t * pace < room)).sum(1, keepdim=True)
        going = (missing > 1e-6 * size) & (slope > 0)
        if not bool(going.any()):
            break
        t = torch.where(going, t + missing / slope.clamp_min(torch.finfo(slope.dtype).tiny), t)
    return (direction * torch.minimum(t * pace, room)).view(shape)


def _toward(logits: Tensor, goal: Tensor) -> Tensor:
    return margin_targeted(logits, goal[:, 0], goal[:, 1])
