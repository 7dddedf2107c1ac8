"""Runs of the same image side by side (targets, restarts), in step: the first to fool the system ends all of them.

Because all runs of an image advance together, results do not depend on how images are batched, and survivors that have
become few still fill a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from robustforge.attacks.core.session import AttackSession

# (rows (n,), numbers of their runs) -> (images (runs * n, C, H, W), all of the first run first; which fooled)
Run = Callable[[Tensor, Sequence[int]], tuple[Tensor, Tensor]]


class Lockstep:
    """Keeps the book of some runs: who is done, with what, and who goes on.

    Attributes:
        rows: (m,) whose the runs are that still go on.
        place: (m,) their positions among all runs.
        ends: (n, C, H, W) where each run ended.
        fooled: (n,) bool, which runs fooled the system.
    """

    def __init__(self, session: AttackSession, rows: Tensor, start: Tensor) -> None:
        self.session, self.rows, self.place = session, rows, torch.arange(len(rows), device=rows.device)
        self.ends, self.fooled = start.clone(), torch.zeros(len(rows), dtype=torch.bool, device=rows.device)
        self._firsts = session.traced = len(torch.unique(rows))  # the first run of each image stands before all others

    def judge(self, x: Tensor, suspects: Tensor) -> Tensor | None:
        """Ends every run of the images that one of their iterates fools.

        Args:
            x: (m, C, H, W) iterates.
            suspects: (m,) bool, the iterates that the attacker has reason to believe in; the system decides.

        Returns:
            Positions that go on, or None for all of them.
        """
        asked = suspects.nonzero().flatten()
        if not len(asked):
            return None
        hit = asked[self.session.fools(x[asked], self.rows[asked])]
        if not len(hit):
            return None
        self.ends[self.place[hit]], self.fooled[self.place[hit]] = x[hit], True
        done = torch.zeros(len(self.session.x), dtype=torch.bool, device=x.device)
        done[self.rows[hit]] = True
        return self.drop(done[self.rows])

    def drop(self, over: Tensor) -> Tensor | None:
        """Ends runs where they stand (m,); positions that go on, or None for all of them."""
        if not bool(over.any()):
            return None
        keep = (~over).nonzero().flatten()
        self.rows, self.place = self.rows[keep], self.place[keep]
        self.session.traced = int((self.place < self._firsts).sum())
        return keep


def standing(session: AttackSession) -> Tensor:
    """Rows that the system still gets right (or that are not yet at their target), unless there is no budget."""
    if session.threat.eps == 0 or not len(session.x):
        return session.everyone()[:0]
    return (~session.fools(session.x, count=False)).nonzero().flatten()


def side_by_side(session: AttackSession, best: Tensor, rows: Tensor, numbers: Sequence[int], run: Run) -> Tensor:
    """Runs of the same images next to each other, in chunks that fill a batch.

    Args:
        session: the surface, the images and the budget.
        best: (B, C, H, W), overwritten at ``rows`` by the first fooling run's image, else by the first run's.
        rows: (n,) images to attack.
        numbers: of the runs that each image gets.
        run: (rows, numbers) -> where all runs of these rows ended, first runs first, and which fooled.

    Returns:
        Rows that no run fooled.
    """
    lanes = len(numbers)
    if not lanes or not len(rows):
        return rows
    left = []
    for chunk in torch.split(rows, max(1, len(session.x) // lanes)):
        ends, fooled = run(chunk, numbers)
        fooled = fooled.view(lanes, len(chunk))
        winner = fooled.int().argmax(0)  # the first of equal values
        best[chunk] = ends[winner * len(chunk) + torch.arange(len(chunk), device=rows.device)]
        left.append(chunk[~fooled.any(0)])
    session.traced = None
    return torch.cat(left)


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


def in_rounds(session: AttackSession, runs: int, restarts: int, run: Run) -> Tensor:
    """The first start of every run, then all other starts together on what still stands.

    Args:
        session: the surface, the images and the budget.
        runs: of each image and restart (target classes).
        restarts: starts of each.
        run: see :func:`side_by_side`; numbers count through the runs of the first restart, then of the next.

    Returns:
        (B, C, H, W).
    """
    best, rows = session.x.clone(), standing(session)
    rows = side_by_side(session, best, rows, range(runs), run)
    session.tracing = False
    side_by_side(session, best, rows, range(runs, runs * restarts), run)
    return best


def likely_classes(session: AttackSession, count: int) -> Tensor:
    """(B, min(count, K - 1)) the likeliest wrong classes of the clean images in their order; or a session's targets."""
    if session.targets is not None:
        return session.targets[:, None]
    logits = session.logits(session.x, session.everyone())
    wrong = logits.scatter(1, session.y[:, None], float("-inf"))
    return wrong.topk(min(count, logits.shape[1] - 1), dim=1).indices


def goals(session: AttackSession, classes: Tensor, rows: Tensor, numbers: Sequence[int]) -> Tensor:
    """(runs * n, 2) label and wrong class of each run, for ``classes`` (B, J); run k aims at its class k modulo J."""
    aims = [classes[rows, number % classes.shape[1]] for number in numbers]
    return torch.stack([session.y[rows].repeat(len(aims)), torch.cat(aims)], 1)
