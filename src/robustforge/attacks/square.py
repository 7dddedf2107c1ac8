"""Square: random search with square-shaped updates, by scores only (Andriushchenko et al. 2020, arXiv:1912.00049)."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from robustforge.attacks.core.attack import BaseAttack
from robustforge.attacks.core.restarts import in_rounds, room
from robustforge.attacks.core.session import AttackSession
from robustforge.attacks.core.survivors import Iterates, Survivors, hopeless
from robustforge.attacks.square_moves import DRAWS, MOVES, Moves
from robustforge.randomness import SampleRandom
from robustforge.ranges import PositiveInt, PositiveShare, Precision
from robustforge.types import DefenseOutput

HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # of the window's area, in queries out of 10,000
_BLOCK = 100  # queries whose draws are made at once
_AHEAD = 8  # queries of an image that one pass answers at most
_PATIENCE = 5  # blocks before an image may be given up


@dataclass
class _Search(Iterates):
    """What a run carries; its iterate is the best image so far."""

    clean: Tensor  # (m, C, H, W)
    value: Tensor  # (m,) of the best image
    history: Tensor  # (m, blocks) the value at the start of every block of queries
    draws: Tensor  # (m, queries of a block, numbers a query)
    query: Tensor  # (m,) the next query within a group
    ahead: Tensor  # (m,) queries that are answered in one pass


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
        Where the answer is wrong but rejected, the risk is lowered. Late queries seldom raise the margin, so that
        several are answered in one pass: up to the first that raises it, they are what they would have been one by one.
        Answers beyond it are thrown away and asked again; they count as passes. None is asked where the runs that go on
        fill a pass.
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
        none, zero = start.new_zeros(len(start), 0), torch.zeros_like(rows)
        value = _value(session, output, rows)
        s = _Search(start, session.x[rows], value, history=none, draws=none, query=zero, ahead=zero + 1)
        s, number = runs.judge(s, session.suspects(output.logits, rows)), 0
        while number < self.n_queries and len(runs.rows):
            block, place = divmod(number, _BLOCK)
            if place == 0:
                s = self._review(runs, s, block)
                address = session.index[runs.rows]
                s.draws = random.uniform(address, (_BLOCK, DRAWS + channels), stream=1 + block)
            sides = [self.side(number + later, height, width) for later in range(min(_AHEAD, _BLOCK - place))]
            count = min(sum(side == sides[0] for side in sides), self.n_queries - number)
            s = _ask(session, runs, s, Moves(propose, sides[0], session.threat.eps), place, count)
            number += count
        return runs.finish(s.x), runs.fooled

    def _review(self, runs: Survivors, s: _Search, block: int) -> _Search:
        """Notes the values at the start of a block of queries and drops the hopeless."""
        s.history = torch.cat([s.history, s.value[:, None]], 1)
        if not self.give_up or block < _PATIENCE:
            return s
        spent = block - block // 2
        over = hopeless(s.value, s.history[:, block // 2], spent * _BLOCK, self.n_queries - block * _BLOCK)
        return runs.drop(s, over, s.x)


def _ask(session: AttackSession, runs: Survivors, s: _Search, propose: Moves, place: int, count: int) -> _Search:
    """``count`` queries of all runs, whose draws begin at ``place``; the runs that go on."""
    s.query = torch.zeros_like(runs.rows)
    while bool((s.query < count).any()):
        # as far as a pass has room for all runs: they fill it better than answers that may be thrown away
        s.ahead = s.ahead.clamp(max=max(1, room(session) // len(runs.rows)))
        suspects, ahead = torch.zeros_like(s.query, dtype=torch.bool), int(s.ahead.max())
        for part in torch.split((s.query < count).nonzero().flatten(), max(1, room(session) // ahead)):
            _look_ahead(session, runs.rows, s, propose, place, count, part, suspects)
        s = runs.judge(s, suspects)
    return s


def _look_ahead(
    session: AttackSession,
    rows: Tensor,
    s: _Search,
    propose: Moves,
    place: int,
    count: int,
    part: Tensor,
    suspects: Tensor,
) -> None:
    """The next queries of the runs ``part`` (k,): the first of each that raises its value is kept, those after are not.

    Args:
        session: the attack.
        rows: (m,) whose the runs are.
        s: what they carry; changed in place.
        propose: moves of the group's size.
        place: of the group's draws.
        count: queries of the group.
        part: (k,) runs that have some left.
        suspects: (m,) bool, set where an image that was kept seems to fool.
    """
    steps = torch.arange(_AHEAD, device=part.device)
    numbers = s.query[part, None] + steps
    which, column = ((numbers < count) & (steps < s.ahead[part, None])).nonzero(as_tuple=True)
    run, query = part[which], numbers[which, column]
    proposal, changed = propose(s.x[run], s.clean[run], s.draws[run, place + query])
    run, query = run[changed], query[changed]
    first = torch.full_like(s.query, count)
    if len(run):
        output = session.system_output(proposal, rows[run])
        value = _value(session, output, rows[run])
        better = value > s.value[run]
        first.scatter_reduce_(0, run[better], query[better], "amin")
        kept = better & (query == first[run])
        s.x[run[kept]], s.value[run[kept]] = proposal[kept], value[kept]
        suspects[run[kept]] = session.suspects(output.logits, rows[run])[kept]
    raised = first[part] < count
    s.query[part] = torch.where(raised, first[part] + 1, (s.query[part] + s.ahead[part]).clamp(max=count))
    s.ahead[part] = torch.where(raised, s.ahead[part] // 2, s.ahead[part] * 2).clamp(1, _AHEAD)


def _value(session: AttackSession, output: DefenseOutput, rows: Tensor) -> Tensor:
    """What is raised, (n,): the margin; where the answer is wrong but rejected, 1 at the threshold, less above."""
    value = session.lead(output.logits, rows)
    if session.threshold is None or output.risk is None:
        return value
    excess = (output.risk.float() - session.threshold).clamp(min=0)
    return torch.where(value > 0, 1 / (1 + excess), value)
