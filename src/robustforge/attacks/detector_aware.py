"""Attacks on systems that may reject: the label must become wrong while every risk score stays below its threshold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal

import torch
from annotated_types import Gt
from torch import Tensor

from robustforge.attacks.core.attack import BaseAttack
from robustforge.attacks.core.geometry import ascent_direction, per_sample, project
from robustforge.attacks.core.restarts import first_then_others, in_rounds
from robustforge.attacks.core.session import AttackSession
from robustforge.attacks.core.survivors import Iterates, Survivors
from robustforge.ranges import NonNegativeFloat, PositiveInt
from robustforge.types import NORMS, DefenseOutput


@dataclass
class _Run(Iterates):
    """What a run carries."""

    clean: Tensor  # (m, C, H, W)
    direction: Tensor  # (m, C, H, W) of unit length
    excess: Tensor  # (m, J) of every score over its threshold
    multipliers: Tensor | None = None  # (m, J), None before the first step


@dataclass(frozen=True)
class DetectorAware(BaseAttack):
    """Projected gradient steps on the label and on the detector at once. Without a threshold it is PGD on the margin.

    Attributes:
        schedule: ``selective`` steps on the label's gradient while the label is right, on the detector's while it is
            wrong; ``orthogonal`` does so with the part along the other gradient removed (both: Bryniarski et al. 2022,
            arXiv:2106.15023); ``penalty`` steps on their sum with a multiplier for every image and score, raised
            while the score is too high and lowered while it is not.
        steps: number of steps a run.
        step_size: in pixel units, or None for ``2.5 * eps / steps``.
        start: of the first run: ``clean``, the image itself, which a detector accepts, or ``random``. Noise as large as
            the ball is what detectors see best, and a run that starts there may never come back.
        restarts: runs; all but the first start at random and attack only survivors, side by side.
        confidence: margin up to which the label is pushed; 0 steps back and forth across the boundary.
        growth: factor of the penalty's multipliers at each step, > 1.

    Raises:
        UserError: settings under which it would do nothing.
    """

    evades = needs_risk = of_system = True
    norms = NORMS
    name: str = "detector_aware"
    schedule: Literal["penalty", "selective", "orthogonal"] = "selective"
    steps: PositiveInt = 100
    step_size: NonNegativeFloat | None = None
    start: Literal["clean", "random"] = "clean"
    restarts: PositiveInt = 1
    confidence: NonNegativeFloat = 0.1
    growth: Annotated[float, Gt(1)] = 1.2

    def perturb(self, session: AttackSession, seed: int) -> Tensor:
        """See :class:`robustforge.attacks.core.attack.BaseAttack`."""

        def start(rows: Tensor, restart: int) -> Tensor:
            clean = restart == 0 and self.start == "clean"
            return session.x[rows] if clean else self.random_start(session, seed, rows, restart)

        rounds = first_then_others(1, self.restarts)
        return in_rounds(session, rounds, start, partial(self._run, session), fallback=-1)

    def _run(self, session: AttackSession, start: Tensor, rows: Tensor, _numbers: Sequence[int]) -> tuple[Tensor, None]:
        """Evading iterates (n, C, H, W), the first of each run; else the last."""
        step_size = 2.5 * session.threat.eps / self.steps if self.step_size is None else self.step_size
        runs = Survivors(session, rows, start, stops="own")
        s = _Run(start, session.x[rows], direction=start, excess=start.new_zeros(len(start), 0))
        for _ in runs.steps(self.steps):
            s.direction, s.excess = self._direction(session, s, runs.rows)
            s = runs.judge(s)
            multipliers = torch.ones_like(s.excess) if s.multipliers is None else s.multipliers
            s.multipliers = (multipliers * torch.where(s.excess > 0, self.growth, 1 / self.growth)).clamp(1e-4, 1e4)
            s.x = project(s.x + step_size * s.direction, s.clean, session.threat)
        return runs.finish(s.x), None

    def _direction(self, session: AttackSession, s: _Run, rows: Tensor) -> tuple[Tensor, Tensor]:
        """(unit step direction (m, C, H, W), excess (m, J) of every score over its threshold)."""
        kept: list[Tensor] = []

        def function(leaf: Tensor) -> tuple[list[Tensor], Tensor]:
            """What to raise at ``leaf`` (m, C, H, W), (m,) each, as the schedule has it; and the logits."""
            answer = session.surface.answer(leaf, session.y[rows])
            label, excess = session.lead(answer.logits, rows), scaled_excess(answer, session.threshold)
            kept[:] = [label.detach(), excess.detach()]
            weights = 1.0 if s.multipliers is None else s.multipliers
            quiet = -(weights * excess.clamp(min=0)).sum(1)
            if self.schedule == "penalty":
                return [label.clamp(max=self.confidence) + quiet], answer.logits
            wrong = label.detach() > self.confidence
            if self.schedule == "selective":
                return [torch.where(wrong, quiet, label)], answer.logits
            return [label, quiet], answer.logits

        gradients, values, _ = session.differentiate(s.x, rows, function)
        label, excess = kept
        session.record(rows, gradients[0], values[0])
        gradient = gradients[0]
        if self.schedule == "orthogonal":
            gradient = _without(gradients[0], gradients[1], label > self.confidence)
        return ascent_direction(gradient, session.threat), excess


def scaled_excess(answer: DefenseOutput, threshold: float | None) -> Tensor:
    """How far each score lies above the threshold, in units of the threshold, (B, J); 0 where nothing can be rejected.

    Args:
        answer: with ``detector_scores`` (B, J), or ``risk`` (B,), or neither.
        threshold: inputs with a risk above it are rejected; None accepts everything.
    """
    if threshold is None or answer.risk is None:
        return answer.logits.new_zeros(len(answer.logits), 1)
    scores = answer.risk[:, None] if answer.detector_scores is None else answer.detector_scores
    return (scores.float() - threshold) / max(abs(threshold), 1e-6)


def _without(label: Tensor, quiet: Tensor, active: Tensor) -> Tensor:
    """The gradient that is wanted (``quiet`` where ``active``, else ``label``) less its part along the other one."""
    mask = per_sample(active, label)
    wanted, other = torch.where(mask, quiet, label), torch.where(mask, label, quiet)
    flat = other.flatten(1)
    share = (wanted.flatten(1) * flat).sum(1) / flat.square().sum(1).clamp_min(torch.finfo(flat.dtype).tiny)
    return wanted - per_sample(share, other) * other
