"""Gradient descent on the penalties of a selective classifier (Ghosh, Losalka & Black, AAAI 2019, Eqs. 10 and 11)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from robustforge.attacks.core.attack import BaseAttack
from robustforge.attacks.core.geometry import project
from robustforge.attacks.core.restarts import in_rounds
from robustforge.attacks.core.session import AttackSession
from robustforge.attacks.core.survivors import Iterates, Survivors, standing
from robustforge.randomness import SampleRandom
from robustforge.ranges import NonNegativeFloat, PositiveFloat, PositiveInt

_DECAYS, _TINY = (0.9, 0.999), 1e-8


def minus_penalty(scores: Tensor, target: Tensor) -> Tensor:
    """-penalty_t of scores -log(1 + penalty_c).

    Args:
        scores: (B, K), the view of a ``white_box`` surface.
        target: (B,) classes wanted.

    Returns:
        (B,), at most 0 on such a surface.
    """
    wanted = scores.gather(1, target[:, None]).squeeze(1)
    return -torch.expm1((-wanted).clamp(max=60.0))  # beyond it, float32's square overflows in Adam


@dataclass
class _Descent(Iterates):
    """What Adam carries for each image."""

    clean: Tensor  # (m, C, H, W), as the next three
    gradient: Tensor
    mean: Tensor  # Adam's moments
    square: Tensor
    target: Tensor  # (m,)


@dataclass(frozen=True)
class PenaltyDescent(BaseAttack):
    """Adam on penalty_t(x + eta) + weight |eta|^2: close to the target's mean, well rebuilt, little changed.

    Meant for a ``white_box`` surface. Without a ``target`` every wrong class is tried in turn, on images that no
    earlier one fooled.

    Attributes:
        steps: of Adam, for each target.
        lr: its step size, pixel units.
        distance_weight: of the squared perturbation (paper: 1; 0 for fooling images, Eq. 11).
        start: ``clean`` (eta = 0, Eq. 10) or ``noise``, uniform images projected onto the ball (Eq. 11, whose inputs
            owe nothing to the clean image: give it a threat of linf with eps 1).
        early_stop: stop an image at its first iterate that fools the system.

    Raises:
        UserError: settings under which it would do nothing.

    Notes:
        The paper names neither the optimizer nor steps nor step size, keeps no bound on |eta| and does not say that
        pixels are clipped; here every iterate is projected onto the threat's ball and onto [0, 1].
    """

    evades = True
    name: str = "penalty"
    steps: PositiveInt = 200
    lr: PositiveFloat = 0.01
    distance_weight: NonNegativeFloat = 1.0
    start: Literal["clean", "noise"] = "clean"
    early_stop: bool = True

    def perturb(self, session: AttackSession, seed: int) -> Tensor:
        """See :class:`robustforge.attacks.core.attack.BaseAttack`."""
        best, rows = session.x, standing(session) if self.early_stop else session.everyone()
        if self.start == "noise":
            noise = SampleRandom(seed, self.name).uniform(session.index, best.shape[1:])
            rows, best = session.everyone(), project(noise, session.x, session.threat)
        # one round for the target, or one for every wrong class: the next, the one after it, and so on
        classes = 2 if session.targets is not None else session.logits(session.x[:1], rows.new_zeros(1)).shape[1]

        def run(start: Tensor, rows: Tensor, offset: Sequence[int]) -> tuple[Tensor, Tensor | None]:
            if session.targets is not None:
                return self._descend(session, start, rows, session.targets[rows]), None
            ends = self._descend(session, start, rows, (session.y[rows] + offset[0]) % classes)
            return ends, session.fools(ends, rows)

        rounds = [[offset] for offset in range(1, classes)]
        return in_rounds(session, rounds, lambda rows, _: best[rows], run, rows=rows, best=best.clone())

    def _descend(self, session: AttackSession, start: Tensor, rows: Tensor, target: Tensor) -> Tensor:
        """(n, C, H, W): last, or first fooling, iterates for one target of each image."""
        runs = Survivors(session, rows, start, stops="all" if self.early_stop else "never")
        s = _Descent(start, session.x[rows], start, torch.zeros_like(start), torch.zeros_like(start), target)
        for step in runs.steps(self.steps):
            s.gradient, scores, _ = session.gradient(s.x, runs.rows, minus_penalty, s.target)
            s = runs.judge(s, session.suspects(scores, runs.rows))
            gradient = s.gradient - 2 * self.distance_weight * (s.x - s.clean)
            s.mean = _DECAYS[0] * s.mean + (1 - _DECAYS[0]) * gradient
            s.square = _DECAYS[1] * s.square + (1 - _DECAYS[1]) * gradient.square()
            ascent = (s.mean / (1 - _DECAYS[0] ** (step + 1))) / (
                (s.square / (1 - _DECAYS[1] ** (step + 1))).sqrt() + _TINY
            )
            s.x = project(s.x + self.lr * ascent, s.clean, session.threat)
        return runs.finish(s.x)
