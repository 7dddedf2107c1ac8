"""Wrong classes worth aiming at, and which run aims at which."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from robustforge.attacks.core.session import AttackSession


def likely_classes(session: AttackSession, count: int | None = None, rows: Tensor | None = None) -> Tensor:
    """The likeliest wrong classes of the clean images, by one forward pass.

    Args:
        session: whose images.
        count: at most so many of each image; all by default.
        rows: (n,) images; everyone by default.

    Returns:
        (n, min(count, K - 1)), likeliest first; the session's targets (n, 1) if it has any.
    """
    rows = session.everyone() if rows is None else rows
    if session.targets is not None:
        return session.targets[rows, None]
    wrong = session.logits(session.x[rows], rows).scatter(1, session.y[rows, None], float("-inf"))
    return wrong.topk(min(count or wrong.shape[1], wrong.shape[1] - 1), dim=1).indices


def goals(session: AttackSession, classes: Tensor, rows: Tensor, numbers: Sequence[int]) -> Tensor:
    """(n, 2) label and wrong class of each run of a round, for ``classes`` (B, J): run k aims at class k modulo J."""
    runs = zip(rows.chunk(len(numbers)), numbers, strict=True)
    aims = torch.cat([classes[part, number % classes.shape[1]] for part, number in runs])
    return torch.stack([session.y[rows], aims], 1)
