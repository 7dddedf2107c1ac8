"""Margin decomposition: one term of the margin first, then both (MD, Ma et al. 2020; PMA, arXiv:2411.15210)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal

import torch
from annotated_types import Ge
from torch import Tensor

from robustforge.attacks.core.ascent import Ascent
from robustforge.attacks.core.attack import BaseAttack
from robustforge.attacks.core.geometry import projected_step_
from robustforge.attacks.core.restarts import first_then_others, in_rounds
from robustforge.attacks.core.session import AttackSession
from robustforge.attacks.core.survivors import Survivors
from robustforge.losses.classification import margin_terms
from robustforge.ranges import PositiveInt

SPACES: dict[str, Callable[[Tensor], Tensor]] = {
    "logits": lambda logits: logits,
    "probabilities": lambda logits: logits.softmax(1),
}
TERMS = ("label", "rival")


@dataclass(frozen=True)
class MarginDecomposition(BaseAttack):
    """Two halves: ascent on one term of the margin max_{j != y} s_j - s_y, then on the margin itself.

    In a confident network the gradients of the two terms cancel, and that of their sum misleads. Either half begins
    with steps of 2 eps, which fall to 0 along half a cosine.

    Attributes:
        steps: gradients a run, both halves together.
        restarts: random starts; later ones attack only survivors, side by side, and begin with the other term in turn.
        space: of the scores s: ``logits`` (MD) or ``probabilities`` (PMA).
        first: the term that the first run begins with: ``label``, -s_y, or ``rival``, max_{j != y} s_j.

    Raises:
        UserError: settings under which it would do nothing.

    Notes:
        An image stops at its first iterate, in either half, that the system judges fooled.
    """

    name: str = "md"
    steps: Annotated[int, Ge(2)] = 100
    restarts: PositiveInt = 1
    space: Literal["logits", "probabilities"] = "logits"
    first: Literal["label", "rival"] = "label"

    def perturb(self, session: AttackSession, seed: int) -> Tensor:
        """See :class:`robustforge.attacks.core.attack.BaseAttack`."""
        start, run = partial(self.random_start, session, seed), partial(self._ascend, session)
        return in_rounds(session, first_then_others(1, self.restarts), start, run)

    def step_size(self, number: int, eps: float) -> float:
        """Of step ``number``: 2 eps at the start of each half, less and less toward its end."""
        half = self.steps // 2
        place, length = (number, half) if number < half else (number - half, self.steps - half)
        return eps * (1 + math.cos(math.pi * place / length))

    def _ascend(
        self, session: AttackSession, start: Tensor, rows: Tensor, numbers: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """(images (n, C, H, W): first fooling iterates, else the last; (n,) bool: which fooled)."""
        aim = session.y if session.targets is None else session.targets
        turn = rows.new_tensor(numbers).repeat_interleave(len(rows) // len(numbers)) + TERMS.index(self.first)
        label = (turn % 2 == 0).long()
        runs = Survivors(session, rows, start, stops="later")
        s = Ascent.begin(session, start, rows, torch.stack([aim[rows], 1 - label, label], 1))

        for number in runs.steps(self.steps):
            if number == self.steps // 2 and s.goal is not None:
                s.goal = torch.cat([s.goal[:, :1], torch.ones_like(s.goal[:, 1:])], 1)
            s.gradient, logits = self._gradient(session, s, runs.rows)
            s = runs.judge(s, session.suspects(logits, runs.rows))
            size = self.step_size(number, session.threat.eps)
            s.x = projected_step_(s.x, s.gradient, size, s.clean, session.threat, s.box)
        s = runs.judge(s)
        return runs.finish(s.x), runs.fooled

    def _gradient(self, session: AttackSession, s: Ascent, rows: Tensor) -> tuple[Tensor, Tensor]:
        """(gradient (m, C, H, W) of the terms that ``s.goal`` (m, 3) holds: class, rival, label; logits (m, K))."""
        sign = 1 if session.targets is None else -1

        def objective(logits: Tensor, goal: Tensor) -> Tensor:
            rival, label = margin_terms(SPACES[self.space](logits), goal[:, 0])
            return sign * (goal[:, 1] * rival + goal[:, 2] * label)

        def function(leaf: Tensor) -> tuple[list[Tensor], Tensor]:
            logits, value = session.surface.evaluate(leaf, session.y[rows], objective, s.goal)
            return [value], logits

        (gradient,), _, logits = session.differentiate(s.x, rows, function)
        # the trace is of the margin throughout: values of the two halves cannot be compared
        first = slice(session.traced)
        session.record(rows[first], gradient[first], session.lead(logits.detach(), rows)[first])
        return gradient, logits.detach()
