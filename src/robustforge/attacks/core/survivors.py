"""Who is still attacked: which runs go on, what they carry, and with what the others ended.

A run is one search for one image. Several runs of the same image (restarts, target classes) may stand side by side:
they advance together, so that survivors that have become few still fill a batch and results do not depend on how
images are batched.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, Literal, Self, TypeVar

import torch
from torch import Tensor

from robustforge.attacks.core.session import AttackSession

Stops = Literal["all", "later", "own", "never"]


@dataclass
class State:
    """What an algorithm carries from step to step: every field of a subclass has one entry for each run, or is None."""

    def select(self, index: Tensor) -> Self:
        """The runs at ``index`` only."""
        return type(self)(**{name: _select(value, index) for name, value in vars(self).items()})


def _select(value: Any, index: Tensor) -> Any:
    if value is None:
        return None
    return tuple(part[index] for part in value) if isinstance(value, tuple) else value[index]


@dataclass
class Iterates(State):
    """What every algorithm on survivors carries."""

    x: Tensor  # (m, C, H, W) iterates of the runs that go on


S = TypeVar("S", bound=Iterates)


class Survivors:
    """Keeps the book of some runs: who goes on, who is done, and with what.

    Args:
        session: the attack that they belong to.
        rows: (n,) whose the runs are. The session traces the leading ones, one of each row: stand all first runs before
            any second one, unless the attack records its steps itself.
        start: (n, C, H, W) what a run ends with that never says otherwise.
        stops: which runs stop when one fools the system: ``all`` of its image; itself and the ``later`` ones of its
            image, so that the earliest counts; its ``own`` alone; or none, ``never``.

    Attributes:
        rows: (m,) whose the runs are that still go on.
        ends: (n, C, H, W) where each run ended.
        fooled: (n,) bool, which runs fooled the system.
    """

    def __init__(self, session: AttackSession, rows: Tensor, start: Tensor, stops: Stops = "all") -> None:
        self.rows, self.ends, self.fooled = rows, start.clone(), torch.zeros_like(rows, dtype=torch.bool)
        self._session, self._stops = session, stops
        self._place = torch.arange(len(rows), device=rows.device)
        self._firsts = session.traced = len(torch.unique(rows))

    def steps(self, count: int) -> Iterator[int]:
        """0 .. ``count`` - 1, as long as any run goes on."""
        return takewhile(lambda _: len(self.rows) > 0, range(count))

    def judge(self, state: S, suspects: Tensor | None = None) -> S:
        """Stops runs whose iterate fools the system.

        Args:
            state: of the runs that go on.
            suspects: (m,) bool, the iterates that the attacker has reason to believe in; all by default. The attacker's
                pass only nominates; the system's float32 answer decides.

        Returns:
            The state of those that still go on.
        """
        if self._stops == "never":
            return state
        asked = (torch.ones_like(self.rows) if suspects is None else suspects).nonzero().flatten()
        if not len(asked):
            return state
        hit = asked[self._session.fools(state.x[asked], self.rows[asked])]
        if not len(hit):
            return state
        self.fooled[self._place[hit]] = True
        return self.drop(state, self._stopped_by(hit), state.x)

    def drop(self, state: S, over: Tensor, ends: Tensor | None = None) -> S:
        """Ends the runs ``over`` (m,) bool, with ``ends`` (m, C, H, W) if any; the state of those that go on."""
        if not bool(over.any()):
            return state
        if ends is not None:
            self.ends[self._place[over]] = ends[over]
        keep = (~over).nonzero().flatten()
        self.rows, self._place = self.rows[keep], self._place[keep]
        self._session.traced = int((self._place < self._firsts).sum())
        return state.select(keep)

    def finish(self, x: Tensor) -> Tensor:
        """Where all runs ended (n, C, H, W), those that still go on with ``x`` (m, C, H, W)."""
        self.ends[self._place] = x
        return self.ends

    def _stopped_by(self, hit: Tensor) -> Tensor:
        """(m,) bool: runs that stop because those at ``hit`` fooled."""
        place = torch.arange(len(self.rows), device=hit.device)
        if self._stops == "own":
            return torch.isin(place, hit)
        first = first_hits(self.rows, hit, len(self._session.x))[self.rows]
        return place >= first if self._stops == "later" else first < len(place)


def first_hits(rows: Tensor, hit: Tensor, images: int) -> Tensor:
    """(images,) the first of the positions ``hit`` whose row is that image's, or ``len(rows)`` where there is none."""
    first = torch.full((images,), len(rows), device=rows.device)
    return first.scatter_reduce_(0, rows[hit], hit, "amin")


def standing(session: AttackSession) -> Tensor:
    """(n,) rows of the images that the system still gets right, or that are not yet at their target."""
    return (~session.fools(session.x, count=False)).nonzero().flatten()


def hopeless(value: Tensor, before: Tensor, spent: int, left: int) -> Tensor:
    """(n,) bool: would not reach 0 in the ``left`` steps, even at the pace of the last ``spent``.

    Progress of these searches slackens, so that the pace of the past is more than the future's; judging by it is
    generous. It is a guess all the same, and measured as one.

    Args:
        value: (n,) best objective so far, positive on success.
        before: (n,) the same ``spent`` steps ago.
        spent: how long ago that was, 1 or more.
        left: steps that remain.
    """
    return value + (value - before) * (left / spent) < 0
