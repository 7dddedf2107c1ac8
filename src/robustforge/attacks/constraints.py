"""Targeted descent on hinges, of the label and of every score that a selective system rejects by."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from robustforge.attacks.core.ascent import check_choice, check_settings
from robustforge.attacks.core.attack import BaseAttack
from robustforge.attacks.core.geometry import ascent_direction, project, random_start
from robustforge.attacks.core.lockstep import likely_classes
from robustforge.attacks.core.session import AttackSession
from robustforge.attacks.detector_aware import scaled_excess
from robustforge.losses.classification import margin
from robustforge.randomness import SampleRandom
from robustforge.types import UserError

SCHEDULES = ("penalty", "selective")
_NEAR = 0.1  # hinges below it are put before the system, which judges in float32 what the attacker may see in bf16


@dataclass(frozen=True)
class ConstraintDescent(BaseAttack):
    """Signed or normalised steps on a sum of hinges, for one wrong class after another, on survivors.

    The hinges of target t are relu(max_c logits_c - logits_t + confidence), for the label, and
    log(1 + relu(score_j / threshold - 1 + slack)) for every score of the detector. All are zero where the system
    answers t and accepts. On an aimed surface the scores are those of the target, not of the predicted class.

    Attributes:
        schedule: ``penalty`` steps on the sum with a multiplier for every image and hinge, raised while it is violated
            and lowered while it is not; ``selective`` on the gradient of the largest hinge alone.
        classes: wrong classes tried, likeliest first; None for all.
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
    schedule: str = "penalty"
    classes: int | None = None
    steps: int = 100
    step_size: float | None = None
    restarts: int = 2
    slack: float = 0.05
    confidence: float = 0.01
    growth: float = 1.2

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settings(self.name, "margin", self.precision, self.steps, self.restarts, self.step_size)
        check_choice(self.name, "schedule", self.schedule, SCHEDULES)
        if self.classes is not None and self.classes < 1:
            raise UserError(f"Attack {self.name} has classes={self.classes}: give at least 1, or null for all.")
        if not (self.growth > 1 and self.slack >= 0 and self.confidence >= 0):
            raise UserError(f"Attack {self.name} needs growth > 1, slack >= 0 and confidence >= 0.")

    def perturb(self, session: AttackSession, seed: int) -> Tensor:
        """See :class:`robustforge.attacks.core.attack.BaseAttack`."""
        best = session.x.clone()
        if session.threat.eps == 0 or not len(best):
            return best
        rows = (~session.fools(best, count=False)).nonzero().flatten()
        ranking = likely_classes(session, self.classes or session.classes() - 1)
        for number in range(ranking.shape[1]):
            for restart in range(self.restarts):
                if not len(rows):
                    return best
                target = ranking[rows, number]
                random = SampleRandom(seed, self.name, number * self.restarts + restart)
                begin = self._start(session, rows, target, restart, random)
                best[rows] = ends = self._descend(session, begin, rows, target)
                session.tracing = False
                rows = rows[~session.fools(ends, rows)]
        return best

    def _start(
        self, session: AttackSession, rows: Tensor, target: Tensor, restart: int, random: SampleRandom
    ) -> Tensor:
        x, index, own = session.x[rows], session.index[rows], session.surface.start
        if own is not None and restart % 2 == 0:
            with torch.no_grad():
                return project(own(target, index, restart), x, session.threat)
        return project(random_start(x, index, session.threat, random), x, session.threat)

    def _descend(self, session: AttackSession, start: Tensor, rows: Tensor, target: Tensor) -> Tensor:
        """(n, C, H, W): the first evading iterate of each image, else the last."""
        first = session.threat.eps / 10 if self.step_size is None else self.step_size
        result, place, current = start.clone(), torch.arange(len(rows), device=start.device), start
        multipliers: Tensor | None = None
        for step in range(self.steps):
            gradient, hinges = self._gradient(session, current, rows, target, multipliers)
            near = (hinges < _NEAR).all(1).nonzero().flatten()
            done = near[session.fools(current[near], rows[near])] if len(near) else near
            multipliers = torch.ones_like(hinges) if multipliers is None else multipliers
            multipliers = (multipliers * torch.where(hinges > 0, self.growth, 1 / self.growth)).clamp(1e-2, 1e2)
            if len(done):
                result[place] = current
                keep = torch.ones(len(rows), dtype=torch.bool, device=rows.device).index_fill(0, done, False)
                place, rows, target, multipliers = place[keep], rows[keep], target[keep], multipliers[keep]
                current, gradient = current[keep], gradient[keep]
                if not len(rows):
                    return result
            size = first * 0.5 * (1 + math.cos(math.pi * step / self.steps))
            direction = ascent_direction(gradient, session.threat)
            current = project(current + size * direction, session.x[rows], session.threat)
        result[place] = current
        return result

    def _gradient(
        self, session: AttackSession, current: Tensor, rows: Tensor, target: Tensor, multipliers: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """(gradient (n, C, H, W) of minus the weighted hinges, hinges (n, 1 + J): the label's, then the scores')."""
        kept: list[Tensor] = []

        def function(leaf: Tensor) -> tuple[list[Tensor], Tensor]:
            answer = (session.surface.attacker_output or session.surface.system)(leaf, self._aim(session, rows, target))
            label = (margin(answer.logits.float(), target) + self.confidence).clamp(min=0)
            scores = torch.log1p((scaled_excess(answer, session.threshold) + self.slack).clamp(min=0))
            hinges = torch.cat([label[:, None], scores], 1)
            kept.append(hinges.detach())
            weights = torch.ones_like(hinges) if multipliers is None else multipliers
            if self.schedule == "selective":
                weights = torch.zeros_like(hinges).scatter(1, hinges.detach().argmax(1, keepdim=True), 1.0)
            return [-(weights * hinges).sum(1)], answer.logits

        (gradient,), _, _ = session.differentiate(current, rows, function)
        (hinges,) = kept
        open_ = hinges.sum(1) > 0  # where nothing is violated, a gradient of zero is no sign of a masked one
        session.record(rows[open_], gradient[open_], -hinges.sum(1)[open_])  # unweighted: the weights change every step
        return gradient, hinges

    @staticmethod
    def _aim(session: AttackSession, rows: Tensor, target: Tensor) -> Tensor:
        return target if session.surface.aimed else session.y[rows]
