"""Targeted descent on hinges, of the label and of every score that a selective system rejects by."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Gt
from torch import Tensor

from robustforge.attacks.core.attack import BaseAttack
from robustforge.attacks.core.geometry import ascent_direction, project
from robustforge.attacks.core.restarts import in_rounds
from robustforge.attacks.core.rivals import Order, ranked_classes
from robustforge.attacks.core.session import AttackSession
from robustforge.attacks.core.survivors import Iterates, Survivors, standing
from robustforge.attacks.detector_aware import scaled_excess
from robustforge.losses.classification import margin
from robustforge.ranges import NonNegativeFloat, PositiveInt

_NEAR = 0.1  # hinges below it are put before the system, which judges in float32 what the attacker may see in bf16


@dataclass
class _Descent(Iterates):
    """What a run carries."""

    clean: Tensor  # (m, C, H, W), as the next
    gradient: Tensor
    target: Tensor  # (m,)
    multipliers: Tensor | None = None  # (m, 1 + J) of the hinges, None before the first step


@dataclass(frozen=True)
class ConstraintDescent(BaseAttack):
    """Signed or normalized steps on a sum of hinges, for one wrong class after another, on survivors.

    The hinges of target t are relu(max_c logits_c - logits_t + confidence), for the label, and
    log(1 + relu(score_j / threshold - 1 + slack)) for every score of the detector. All are zero where the system
    answers t and accepts. On an aimed surface the scores are those of the target, not of the predicted class.

    Attributes:
        schedule: ``penalty`` steps on the sum with a multiplier for every image and hinge, raised while it is violated
            and lowered while it is not; ``selective`` on the gradient of the largest hinge alone.
        classes: wrong classes tried, most promising first; None for all.
        order: which come first: ``logits``, the likeliest, or ``malt``, those of the nearest linearized boundaries
            (arXiv:2407.02240).
        steps: gradient steps a class and restart.
        step_size: first step in pixel units, or None for ``eps / 10``; it falls to zero along half a cosine.
        restarts: starts a class: the surface's own images of the target class, projected onto the ball, in turn with
            random ones; random ones alone on a surface without such images.
        slack: how far below its threshold a score is pushed, in units of the threshold.
        confidence: how far the label is pushed, in logits.
        growth: factor of the multipliers at each step, > 1.

    Raises:
        UserError: settings under which it would do nothing.

    Notes:
        The hinges of the scores are on a logarithm, whose gradient does not grow with the violation: a Mahalanobis
        distance starts thousands of times above its threshold, and would leave the reconstruction error no say.
    """

    evades = True
    name: str = "constraints"
    schedule: Literal["penalty", "selective"] = "penalty"
    classes: PositiveInt | None = None
    order: Order = "logits"
    steps: PositiveInt = 100
    step_size: NonNegativeFloat | None = None
    restarts: PositiveInt = 2
    slack: NonNegativeFloat = 0.05
    confidence: NonNegativeFloat = 0.01
    growth: Annotated[float, Gt(1)] = 1.2

    def perturb(self, session: AttackSession, seed: int) -> Tensor:
        """See :class:`robustforge.attacks.core.attack.BaseAttack`."""
        rows = standing(session)
        ranking, _ = ranked_classes(session, self.order, self.classes or session.classes() - 1)

        def start(rows: Tensor, number: int) -> Tensor:
            own, restart = session.surface.start, number % self.restarts
            if own is None or restart % 2:
                return self.random_start(session, seed, rows, number)
            with torch.no_grad():
                begin = own(ranking[rows, number // self.restarts], session.index[rows], restart)
            return project(begin, session.x[rows], session.threat)

        def run(begin: Tensor, rows: Tensor, number: Sequence[int]) -> tuple[Tensor, Tensor]:
            ends = self._descend(session, begin, rows, ranking[rows, number[0] // self.restarts])
            return ends, session.fools(ends, rows)

        rounds = [[number] for number in range(ranking.shape[1] * self.restarts)]
        return in_rounds(session, rounds, start, run, rows=rows)

    def _descend(self, session: AttackSession, start: Tensor, rows: Tensor, target: Tensor) -> Tensor:
        """(n, C, H, W): the first evading iterate of each image, else the last."""
        first = session.threat.eps / 10 if self.step_size is None else self.step_size
        runs, s = Survivors(session, rows, start), _Descent(start, session.x[rows], start, target)
        for step in runs.steps(self.steps):
            s.gradient, hinges = self._gradient(session, s, runs.rows)
            multipliers = torch.ones_like(hinges) if s.multipliers is None else s.multipliers
            s.multipliers = (multipliers * torch.where(hinges > 0, self.growth, 1 / self.growth)).clamp(1e-2, 1e2)
            s = runs.judge(s, (hinges < _NEAR).all(1))
            size = first * 0.5 * (1 + math.cos(math.pi * step / self.steps))
            s.x = project(s.x + size * ascent_direction(s.gradient, session.threat), s.clean, session.threat)
        return runs.finish(s.x)

    def _gradient(self, session: AttackSession, s: _Descent, rows: Tensor) -> tuple[Tensor, Tensor]:
        """(gradient (m, C, H, W) of minus the weighted hinges, hinges (m, 1 + J): the label's, then the scores')."""
        kept: list[Tensor] = []

        def function(leaf: Tensor) -> tuple[list[Tensor], Tensor]:
            """One value to raise, (m,) minus the weighted hinges at ``leaf`` (m, C, H, W); and the logits."""
            answer = session.surface.answer(leaf, s.target if session.surface.aimed else session.y[rows])
            label = (margin(answer.logits.float(), s.target) + self.confidence).clamp(min=0)
            scores = torch.log1p((scaled_excess(answer, session.threshold) + self.slack).clamp(min=0))
            hinges = torch.cat([label[:, None], scores], 1)
            kept[:] = [hinges.detach()]
            weights = torch.ones_like(hinges) if s.multipliers is None else s.multipliers
            if self.schedule == "selective":
                weights = torch.zeros_like(hinges).scatter(1, hinges.detach().argmax(1, keepdim=True), 1.0)
            return [-(weights * hinges).sum(1)], answer.logits

        (gradient,), _, _ = session.differentiate(s.x, rows, function)
        (hinges,) = kept
        open_ = hinges.sum(1) > 0  # where nothing is violated, a gradient of zero is no sign of a masked one
        session.record(rows[open_], gradient[open_], -hinges.sum(1)[open_])  # unweighted: the weights change every step
        return gradient, hinges
