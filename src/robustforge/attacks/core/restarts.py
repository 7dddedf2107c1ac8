"""Restarts: rounds of runs, the runs of one round side by side, each round on what the rounds before left standing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

from robustforge.attacks.core.session import AttackSession
from robustforge.attacks.core.survivors import standing

_ROOM: ContextVar[int] = ContextVar("room", default=0)


@contextmanager
def room_for(images: int) -> Iterator[None]:
    """As many images fit into a pass of the attacks inside, which may be on few of them: they run more side by side."""
    token = _ROOM.set(max(images, _ROOM.get()))
    try:
        yield
    finally:
        _ROOM.reset(token)


def room(session: AttackSession) -> int:
    """How many images fit into a pass: those of the session, or of the batch that its images are of."""
    return max(len(session.x), _ROOM.get())


# (rows (n,), number of the run) -> first iterates (n, C, H, W)
Start = Callable[[Tensor, int], Tensor]
# (first iterates (n, C, H, W), rows (n,), numbers of a round's runs, whose images stand one run after another)
# -> (where the runs ended (n, C, H, W), which fooled (n,) or None if the run has not asked)
Run = Callable[[Tensor, Tensor, Sequence[int]], tuple[Tensor, Tensor | None]]


def first_then_others(lanes: int, restarts: int) -> tuple[range, range]:
    """Two rounds: the first start of each of ``lanes`` runs (target classes), then all other starts together."""
    return range(lanes), range(lanes, lanes * restarts)


def in_rounds(
    session: AttackSession,
    rounds: Sequence[Sequence[int]],
    start: Start,
    run: Run,
    *,
    rows: Tensor | None = None,
    best: Tensor | None = None,
    fallback: int = 0,
) -> Tensor:
    """Runs of the same images, round after round.

    Args:
        session: the surface, the images and the budget.
        rounds: the numbers of the runs that each image gets in each round; a round of none is skipped.
        start: where a run begins.
        run: the search. Where it has not asked the system, the engine does, unless there is but one round.
        rows: (n,) images to attack; those that the system gets right by default.
        best: (B, C, H, W) what the others are returned as, overwritten; the clean images by default.
        fallback: which of a round's runs is taken where none fooled: 0 for the first, -1 for the last.

    Returns:
        (B, C, H, W): of each image where its first run ended that fooled, else what ``fallback`` says.
    """
    rows = standing(session) if rows is None else rows
    best = session.x.clone() if best is None else best
    rounds = [numbers for numbers in rounds if len(numbers)]
    for numbers in rounds:
        left = [rows[:0]]
        for chunk in torch.split(rows, max(1, room(session) // len(numbers))) if len(rows) else ():
            tiled = chunk.repeat(len(numbers))
            ends, fooled = run(torch.cat([start(chunk, number) for number in numbers]), tiled, numbers)
            if fooled is None:
                fooled = session.fools(ends, tiled) if len(rounds) > 1 else torch.zeros_like(tiled, dtype=torch.bool)
            fooled = fooled.view(len(numbers), len(chunk))
            winner = torch.where(fooled.any(0), fooled.int().argmax(0), fallback % len(numbers))  # the first of equals
            best[chunk] = ends[winner * len(chunk) + torch.arange(len(chunk), device=rows.device)]
            left.append(chunk[~fooled.any(0)])
        rows, session.tracing, session.traced = torch.cat(left), False, None
    return best
