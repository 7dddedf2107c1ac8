"""Square: random search with square-shaped updates, by scores only (Andriushchenko et al. 2020, arXiv:1912.00049)."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from robustforge.attacks.core.attack import BaseAttack
from robustforge.attacks.core.restarts import in_rounds
from robustforge.attacks.core.session import AttackSession
from robustforge.attacks.core.survivors import Iterates, Survivors, hopeless
from robustforge.attacks.square_moves import DRAWS, MOVES
from robustforge.randomness import SampleRandom
from robustforge.ranges import PositiveInt, PositiveShare, Precision
from robustforge.types import DefenseOutput

HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # of the window's area, in queries out of 10,000
_BLOCK = 100  # queries whose draws are made at once
_PATIENCE = 5  # blocks before an image may be given up


@dataclass
class _Search(Iterates):
    """What a run carries; its iterate is the best image so far."""

    clean: Tensor  # (m, C, H, W)
    value: Tensor  # (m,) of the best image
    history: Tensor  # (m, blocks) the value at the start of every block of queries
    draws: Tensor  # (m, queries of a block, numbers a query)


@dataclass(frozen=True)
class Square(BaseAttack):
    """Keeps a random square of new values wherever it raises the deployed system's margin; asks for no gradient.

    Attributes:
        precision: ``float32``; see the notes before choosing another.
        n_queries: proposals a restart, after the first.
        restarts: random starts; later ones attack only survivors.
        p_init: share of the image that the first squares cover, in (0, 1].
        give_up: leave images alone that would not get there at the pace of the later half of their queries: not in the
            paper, quicker, and possibly weaker.
        resc_schedule: stretch the schedule of square sizes over ``n_queries`` (else it is for 10,000 queries).

    Raises:
        UserError: settings under which it would do nothing.

    Notes:
        It asks the deployed system, whatever the surface differentiates, so that masked gradients do not help. A
        proposal that changes nothing (the window already holds those values) uses up its query but no pass: the answer
        is known. Late windows gain less than bf16's rounding, which cost 3 points of success on MNIST: hence float32.
        Where the answer is wrong but rejected, the risk is lowered.
    """

    evades = of_system = True
    norms = ("linf", "l2", "l1")
    name: str = "square"
    precision: Precision = "float32"
    n_queries: PositiveInt = 5000
    restarts: PositiveInt = 1
    p_init: PositiveShare = 0.8
    resc_schedule: bool = True
    give_up: bool = False

    def perturb(self, session: AttackSession, seed: int) -> Tensor:
        """See :class:`robustforge.attacks.core.attack.BaseAttack`."""
        first, _ = MOVES[session.threat.norm]

        def start(rows: Tensor, restart: int) -> Tensor:
            random = SampleRandom(seed, self.name, restart)
            return first(session.x[rows], session.index[rows], random, session.threat.eps)

        def run(begin: Tensor, rows: Tensor, restart: Sequence[int]) -> tuple[Tensor, Tensor]:
            return self._search(session, begin, rows, SampleRandom(seed, self.name, restart[0]))

        return in_rounds(session, [[restart] for restart in range(self.restarts)], start, run)

    def side(self, number: int, height: int, width: int) -> int:
        """Side in pixels of the square of query ``number``."""
        scaled = int(number / self.n_queries * 10_000) if self.resc_schedule else number
        share = self.p_init / 2 ** bisect_left(HALVINGS, scaled)
        return min(max(round(math.sqrt(share * height * width)), 1), height, width)

    def _search(
        self, session: AttackSession, start: Tensor, rows: Tensor, random: SampleRandom
    ) -> tuple[Tensor, Tensor]:
        """(images (n, C, H, W): fooling ones, else those of the best value; (n,) bool: which fooled)."""
        _, propose = MOVES[session.threat.norm]
        channels, height, width = start.shape[1:]
        runs, output = Survivors(session, rows, start), session.system_output(start, rows)
        none = start.new_zeros(len(start), 0)
        s = _Search(start, session.x[rows], _value(session, output, rows), history=none, draws=none)
        s = runs.judge(s, session.suspects(output.logits, rows))
        for number in runs.steps(self.n_queries):
            block, place = divmod(number, _BLOCK)
            if place == 0:
                s = self._review(runs, s, block)
                address = session.index[runs.rows]
                s.draws = random.uniform(address, (_BLOCK, DRAWS + channels), stream=1 + block)
            side = self.side(number, height, width)
            s = _ask(session, runs, s, *propose(s.x, s.clean, s.draws[:, place], side, session.threat.eps))
        return runs.finish(s.x), runs.fooled

    def _review(self, runs: Survivors, s: _Search, block: int) -> _Search:
        """Notes the values at the start of a block of queries and drops the hopeless."""
        s.history = torch.cat([s.history, s.value[:, None]], 1)
        if not self.give_up or block < _PATIENCE:
            return s
        spent = block - block // 2
        over = hopeless(s.value, s.history[:, block // 2], spent * _BLOCK, self.n_queries - block * _BLOCK)
        return runs.drop(s, over, s.x)


def _ask(session: AttackSession, runs: Survivors, s: _Search, proposal: Tensor, asked: Tensor) -> _Search:
    """Keeps the proposals (k, C, H, W) at positions ``asked`` (k,) that raise the value; the runs that go on."""
    if not len(asked):
        return s
    rows = runs.rows[asked]
    output = session.system_output(proposal, rows)
    value = _value(session, output, rows)
    better = value > s.value[asked]
    place = asked[better]
    if not len(place):
        return s
    s.x[place], s.value[place] = proposal[better], value[better]
    suspects = torch.zeros_like(runs.rows, dtype=torch.bool)
    suspects[place] = session.suspects(output.logits, rows)[better]
    return runs.judge(s, suspects)


def _value(session: AttackSession, output: DefenseOutput, rows: Tensor) -> Tensor:
    """What is raised, (n,): the margin; where the answer is wrong but rejected, 1 at the threshold, less above."""
    value = session.lead(output.logits, rows)
    if session.threshold is None or output.risk is None:
        return value
    excess = (output.risk.float() - session.threshold).clamp(min=0)
    return torch.where(value > 0, 1 / (1 + excess), value)
