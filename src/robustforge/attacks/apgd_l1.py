"""APGD in an L1 ball: sparse steps whose number of values adapts (Croce & Hein 2021, arXiv:2103.01208, Algorithm 1)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from robustforge.attacks.core.geometry import l0_norm, l1_norm, per_sample
from robustforge.attacks.core.session import AttackSession
from robustforge.attacks.core.sparse import largest, project_l1
from robustforge.attacks.core.surface import Objective
from robustforge.attacks.core.survivors import Iterates, Survivors

RADII = ((3.0, 0.3), (2.0, 0.3), (1.0, 0.4))  # of the balls, in eps, and their share of the steps
_FIRST_SHARE = 0.2  # of all values that the first steps move
_REVIEW = 0.04  # share of a ball's steps after which step and sparsity are reviewed
_SHRUNK = 0.95  # a best iterate this much sparser than at the last review restarts the search there
_LESS = 1.5  # divides the best iterate's number of changed values, and steps that brought no sparser one
_SMALLEST = 0.1  # step, in radii


@dataclass
class _Sparse(Iterates):
    """What a run remembers; f is the objective."""

    clean: Tensor  # (m, C, H, W), as the next three
    gradient: Tensor  # of f at x
    best: Tensor  # iterate of the largest f in this ball
    best_gradient: Tensor
    f: Tensor  # (m,) at x, as the next four
    f_best: Tensor
    step: Tensor  # eta, in radii
    count: Tensor  # values that a step moves
    spread: Tensor  # values that the best iterate changed at the last review
    goal: Tensor | None  # (m, ...) second argument of the objective

    @classmethod
    def begin(cls, start: Tensor, clean: Tensor, goal: Tensor | None) -> _Sparse:
        unknown, values = torch.zeros(len(start), device=start.device), float(start.shape[1:].numel())
        count = torch.full_like(unknown, max(1.0, _FIRST_SHARE * values))
        spread = torch.full_like(unknown, values)
        return cls(start, clean, start, start, start, unknown, unknown, unknown, count, spread, goal)

    def enter(self, radius: float) -> None:
        """Starts in a ball of this radius, at the nearest point to the best iterate so far."""
        started = bool((self.step > 0).any())
        self.x = project_l1(self.best, self.clean, radius)
        self.best = self.x
        self.f_best, self.step = torch.full_like(self.f_best, float("-inf")), torch.ones_like(self.step)
        if started:
            self.spread = l0_norm(self.x - self.clean)
            self.count = (self.spread / _LESS).floor().clamp_min(1)

    def note_best(self) -> None:
        """Remembers the iterate of the largest f."""
        better = self.f > self.f_best
        wide = per_sample(better, self.x)
        self.best = torch.where(wide, self.x, self.best)
        self.best_gradient = torch.where(wide, self.gradient, self.best_gradient)
        self.f_best = torch.where(better, self.f, self.f_best)

    def review(self) -> None:
        """Back to the best iterate with a full step where that became sparser, else smaller steps."""
        spread = l0_norm(self.best - self.clean)
        sparser = spread < _SHRUNK * self.spread
        wide = per_sample(sparser, self.x)
        self.x = torch.where(wide, self.best, self.x)
        self.gradient = torch.where(wide, self.best_gradient, self.gradient)
        self.step = torch.where(sparser, 1.0, (self.step / _LESS).clamp_min(_SMALLEST))
        self.count, self.spread = (spread / _LESS).floor().clamp_min(1), spread


def ascend_sparsely(
    session: AttackSession,
    start: Tensor,
    rows: Tensor,
    steps: int,
    objective: Objective,
    *,
    goal: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """APGD-L1 of some runs, in balls of 3, 2 and 1 times the radius one after the other.

    Args:
        session: the surface, the images and the budget.
        start: (n, C, H, W) first iterates.
        rows: (n,) whose they are; a row may stand several times.
        steps: gradients, of all balls together.
        objective: what is maximized.
        goal: (n, ...) its second argument; labels (or the session's targets) by default.

    Returns:
        (images (n, C, H, W): first fooling iterates inside the ball, else those of the highest objective there; (n,)
        bool: which fooled).

    Notes:
        An iterate of a larger ball that fools is none that counts: the system is asked in the last ball alone.
    """
    eps = session.threat.eps
    runs, s = Survivors(session, rows, start), _Sparse.begin(start, session.x[rows], goal)
    for (factor, _), length in zip(RADII, _lengths(steps), strict=True):
        s.enter(factor * eps)
        every = max(1, int(_REVIEW * length))
        for number in runs.steps(length):
            s.gradient, logits, s.f = session.gradient(s.x, runs.rows, objective, s.goal)
            if factor == 1:
                s = runs.judge(s, session.suspects(logits, runs.rows))
            s.note_best()
            if number and number % every == 0:
                s.review()
            chosen = s.gradient.sign() * largest(s.gradient.abs(), s.count)
            stride = per_sample(s.step * factor * eps / l1_norm(chosen).clamp_min(1), s.x)
            s.x = project_l1(s.x + stride * chosen, s.clean, factor * eps)
    s = runs.judge(s)
    return runs.finish(s.best), runs.fooled


def _lengths(steps: int) -> list[int]:
    """How many steps each ball gets; the last one what is left."""
    first = [math.floor(share * steps) for _, share in RADII[:-1]]
    return [*first, steps - sum(first)]
