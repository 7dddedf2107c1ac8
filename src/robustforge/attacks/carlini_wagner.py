"""Carlini & Wagner's L2 attack (2017, arXiv:1608.04644): Adam in a tanh box, binary search over the weight c."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from robustforge.attacks.core.attack import BaseAttack
from robustforge.attacks.core.geometry import per_sample
from robustforge.attacks.core.nearest import Nearest
from robustforge.attacks.core.session import AttackSession
from robustforge.attacks.core.survivors import State
from robustforge.losses.classification import margin
from robustforge.ranges import NonNegativeFloat, PositiveFloat, PositiveInt

_BETA_1, _BETA_2 = 0.9, 0.999  # Adam's
_BEND = 0.7  # share of tanh's range that [0, 1] is laid on: at 1, pixels of exactly 0 or 1 lie at infinity
_LIMIT = math.atanh(_BEND)
_GAIN = 0.005  # share by which an image must be nearer before the system is asked about it
_HALVINGS = 8  # of the way back to the boundary at the end
_PROGRESS = 0.9999  # a loss that has not fallen below this share of its value at the last check ends the round


def to_pixels(w: Tensor) -> tuple[Tensor, Tensor]:
    """Images in [0, 1] for ``w`` (any shape) within +-atanh(0.7), and their derivatives."""
    bent = w.tanh()
    return ((bent / _BEND + 1) / 2).clamp(0, 1), (1 - bent.square()) / (2 * _BEND)


def to_w(x: Tensor) -> Tensor:
    """Inverse of :func:`to_pixels`, finite for every pixel."""
    return torch.atanh((2 * x - 1) * _BEND)


@dataclass
class _Search(State):
    """Where n images stand: each in its own round of the search over c, at its own step, with its own Adam."""

    rows: Tensor  # (n,)
    clean: Tensor  # (n, C, H, W), as the next three
    w: Tensor
    first: Tensor  # Adam's moments
    second: Tensor
    c: Tensor  # (n,), as all that follow
    low: Tensor  # largest c that failed
    high: Tensor  # smallest c that worked
    rounds: Tensor
    step: Tensor  # in this round
    found: Tensor  # anything adversarial in this round
    loss: Tensor  # smallest of this round
    checked: Tensor  # the same at the last check

    @classmethod
    def start(cls, rows: Tensor, clean: Tensor, c: float) -> _Search:
        """The state before the first round: images ``rows`` (m,), ``clean`` (m, C, H, W), the first weight ``c``."""

        def full(value: float) -> Tensor:
            return torch.full((len(rows),), value, device=rows.device)

        inf, count = float("inf"), torch.zeros_like(rows)
        return cls(
            rows,
            clean,
            to_w(clean),
            torch.zeros_like(clean),
            torch.zeros_like(clean),
            full(c),
            full(0.0),
            full(inf),
            count,
            count.clone(),
            torch.zeros_like(rows, dtype=torch.bool),
            full(inf),
            full(inf),
        )

    def next_round(self, ended: Tensor) -> None:
        """Another c, from the clean image, for the images at ``ended`` (m,)."""
        found, c = self.found[ended], self.c[ended]
        high = torch.where(found, c, self.high[ended])
        low = torch.where(found, self.low[ended], c)
        self.c[ended] = torch.where(high.isinf(), c * 10, (low + high) / 2)
        self.low[ended], self.high[ended] = low, high
        self.w[ended] = to_w(self.clean[ended])
        for moment in (self.first, self.second):
            moment[ended] = 0.0
        self.step[ended], self.found[ended] = 0, False
        self.loss[ended], self.checked[ended] = float("inf"), float("inf")
        self.rounds[ended] += 1

    def adam(self, gradient: Tensor, learning_rate: float) -> None:
        """One step down ``gradient`` (n, C, H, W), within the box; bias is corrected by each image's own step count."""
        self.step += 1
        self.first.lerp_(gradient, 1 - _BETA_1)
        self.second.mul_(_BETA_2).addcmul_(gradient, gradient, value=1 - _BETA_2)
        count = self.step.float()
        size = per_sample(learning_rate / (1 - _BETA_1**count), gradient)
        scale = per_sample((1 - _BETA_2**count).rsqrt(), gradient)
        self.w.sub_(size * self.first / (self.second.sqrt() * scale).add_(1e-8))
        self.w.clamp_(-_LIMIT, _LIMIT)


@dataclass(frozen=True)
class CarliniWagner(BaseAttack):
    """Minimizes ``||x_adv - x||^2 + c * max(confidence - margin, 0)`` and searches the smallest c that works.

    Attributes:
        search_steps: rounds of the search over c: times 10 until one works, then bisection.
        steps: largest number of Adam steps a round.
        learning_rate: Adam's, in the tanh variable.
        initial_c: c of the first round.
        confidence: margin of the logits that the result must have.
        patience: steps between two looks at the loss; one that has not fallen ends the round (abort early).

    Raises:
        UserError: settings under which it would do nothing.

    Notes:
        Released code scales pixels by 0.999999 before atanh, so that those at exactly 0 or 1 start at +-7.25, where
        tanh is flat and Adam needs a thousand steps to move them. Here [0, 1] is laid on +-0.7 of tanh's range and w is
        held within the box, so that every pixel moves at once; hence also a learning rate above the paper's 0.005.
        Every image has its own round and step: one that aborts goes on with its next c beside the others. The nearest
        image found is drawn toward the clean one, while the system is fooled, by bisection. Of several views each has
        a hinge of its own. The attack minimizes L2 whatever the threat is; a result outside the ball is projected.
    """

    name: str = "carlini_wagner"
    search_steps: PositiveInt = 9
    steps: PositiveInt = 1000
    learning_rate: PositiveFloat = 0.02
    initial_c: PositiveFloat = 1e-2
    confidence: NonNegativeFloat = 0.0
    patience: PositiveInt = 25

    def perturb(self, session: AttackSession, seed: int) -> Tensor:
        """See :class:`robustforge.attacks.core.attack.BaseAttack`."""
        nearest = Nearest(session, "l2")
        rows = nearest.standing()
        search = _Search.start(rows, session.x[rows], self.initial_c)
        while len(search.rows):
            self._step(session, nearest, search)
            check = search.step % self.patience == 0
            stalled = check & (search.loss > _PROGRESS * search.checked)
            search.checked = torch.where(check, search.loss, search.checked)
            ended = (stalled | (search.step >= self.steps)).nonzero().flatten()
            if len(ended):
                search.next_round(ended)
                going = search.rounds < self.search_steps
                if not bool(going.all()):
                    search = search.select(going.nonzero().flatten())
        if self.confidence == 0:  # else the boundary is not where the result belongs
            nearest.pull(rows, _HALVINGS)
        return nearest.result()

    def _step(self, session: AttackSession, nearest: Nearest, search: _Search) -> None:
        """One Adam step of every image; what fools on the way is kept."""

        def hinged(logits: Tensor, labels: Tensor) -> Tensor:
            # of targets the session maximizes the negative
            value = margin(logits, labels)
            return value.clamp(max=self.confidence) if session.targets is None else value.clamp(min=-self.confidence)

        x_adv, slope = to_pixels(search.w)
        gradient, logits, value = session.gradient(x_adv, search.rows, hinged)
        search.found |= nearest.offer(x_adv, search.rows, self._suspects(session, logits, search.rows), gain=_GAIN)
        delta = x_adv - search.clean
        missing = self.confidence * sum(session.surface.weights) - value
        search.loss = torch.minimum(search.loss, delta.square().flatten(1).sum(1) + search.c * missing)
        search.adam((2 * delta - per_sample(search.c, delta) * gradient) * slope, self.learning_rate)

    def _suspects(self, session: AttackSession, logits: Tensor, rows: Tensor) -> Tensor:
        """(n,) bool: the goal is reached with the margin asked for."""
        suspects = session.suspects(logits, rows)
        if self.confidence == 0:
            return suspects
        return suspects & (session.lead(logits, rows) >= self.confidence)
