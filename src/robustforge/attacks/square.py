"""Square: random search with square-shaped updates, by scores only (Andriushchenko et al. 2020, arXiv:1912.00049)."""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass

import torch
from torch import Tensor

from robustforge.attacks.core.attack import BaseAttack
from robustforge.attacks.core.lockstep import Lockstep, hopeless, standing
from robustforge.attacks.core.session import AttackSession
from robustforge.attacks.square_moves import DRAWS, MOVES
from robustforge.losses.classification import margin
from robustforge.randomness import SampleRandom
from robustforge.types import DefenseOutput, UserError

HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # of the window's area, in queries out of 10,000
_BLOCK = 100  # queries whose draws are made at once
_PATIENCE = 5  # blocks before an image may be given up


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

    evades = True
    name: str = "square"
    precision: str = "float32"
    n_queries: int = 5000
    restarts: int = 1
    p_init: float = 0.8
    resc_schedule: bool = True
    give_up: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n_queries < 1 or self.restarts < 1:
            raise UserError(
                f"Attack {self.name} has n_queries={self.n_queries} and restarts={self.restarts}: "
                "give at least 1 of each."
            )
        if not 0 < self.p_init <= 1:
            raise UserError(f"Attack {self.name} has p_init={self.p_init}: give a share of the image in (0, 1].")

    def perturb(self, session: AttackSession, seed: int) -> Tensor:
        """See :class:`robustforge.attacks.core.attack.BaseAttack`."""
        best, rows = session.x.clone(), standing(session)
        for restart in range(self.restarts):
            if len(rows):
                best[rows], fooled = self._search(session, rows, SampleRandom(seed, self.name, restart))
                rows = rows[~fooled]
        return best

    def side(self, number: int, height: int, width: int) -> int:
        """Side in pixels of the square of one session."""
        scaled = int(number / self.n_queries * 10_000) if self.resc_schedule else number
        share = self.p_init / 2 ** bisect_left(HALVINGS, scaled)
        return min(max(round(math.sqrt(share * height * width)), 1), height, width)

    def _search(self, session: AttackSession, rows: Tensor, random: SampleRandom) -> tuple[Tensor, Tensor]:
        """(images (n, C, H, W): fooling ones, else those of the best value; (n,) bool: which fooled)."""
        start, propose = MOVES[session.threat.norm]
        eps, clean = session.threat.eps, session.x[rows]
        channels, height, width = clean.shape[1:]
        x = start(clean, session.index[rows], random, eps)
        runs = Lockstep(session, rows, x)
        output = session.system_output(x, rows)
        s = {"x": x, "clean": clean, "value": _value(session, output, rows)}
        keep = runs.judge(x, session.suspects(output.logits, rows))
        for number in range(self.n_queries):
            if keep is not None:
                s = {name: tensor[keep] for name, tensor in s.items()}
            if number % _BLOCK == 0:
                s = self._review(runs, s, number // _BLOCK)
            if not len(runs.rows):
                return runs.ends, runs.fooled
            if number % _BLOCK == 0:
                address = session.index[runs.rows]
                s["draws"] = random.uniform(address, (_BLOCK, DRAWS + channels), stream=1 + number // _BLOCK)
            draw, side = s["draws"][:, number % _BLOCK], self.side(number, height, width)
            keep = _ask(session, runs, s, *propose(s["x"], s["clean"], draw, side, eps))
        runs.ends[runs.place] = s["x"] if keep is None else s["x"][keep]
        return runs.ends, runs.fooled

    def _review(self, runs: Lockstep, s: dict[str, Tensor], block: int) -> dict[str, Tensor]:
        """Notes the values at the start of a block of queries and drops the hopeless."""
        history = s.get("history", s["value"][:, None][:, :0])
        s["history"] = torch.cat([history, s["value"][:, None]], 1)
        if not self.give_up or block < _PATIENCE:
            return s
        spent = block - block // 2
        over = hopeless(s["value"], history[:, block // 2], spent * _BLOCK, self.n_queries - block * _BLOCK)
        runs.ends[runs.place[over]] = s["x"][over]
        keep = runs.drop(over)
        return s if keep is None else {name: tensor[keep] for name, tensor in s.items()}


def _ask(
    session: AttackSession, runs: Lockstep, s: dict[str, Tensor], proposal: Tensor, asked: Tensor
) -> Tensor | None:
    """Keeps the proposals (m, C, H, W) at positions ``asked`` (m,) that raise the value; positions that go on."""
    if not len(asked):
        return None
    rows = runs.rows[asked]
    output = session.system_output(proposal, rows)
    value = _value(session, output, rows)
    better = value > s["value"][asked]
    place = asked[better]
    if not len(place):
        return None
    s["x"][place], s["value"][place] = proposal[better], value[better]
    suspects = torch.zeros_like(runs.rows, dtype=torch.bool)
    suspects[place] = session.suspects(output.logits, rows)[better]
    return runs.judge(s["x"], suspects)


def _value(session: AttackSession, output: DefenseOutput, rows: Tensor) -> Tensor:
    """What is raised, (n,): the margin; where the answer is wrong but rejected, 1 at the threshold, less above."""
    logits = output.logits.float()
    value = margin(logits, session.y[rows]) if session.targets is None else -margin(logits, session.targets[rows])
    if session.threshold is None or output.risk is None:
        return value
    excess = (output.risk.float() - session.threshold).clamp(min=0)
    return torch.where(value > 0, 1 / (1 + excess), value)
