"""Wrong classes worth aiming at, and which run aims at which."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from robustforge.attacks.core.geometry import l1_norm, l2_norm, linf_norm
from robustforge.attacks.core.session import AttackSession
from robustforge.attacks.core.survivors import standing

Order = Literal["logits", "malt"]  # see :func:`ranked_classes`
CANDIDATES = 100  # of MALT, the likeliest wrong classes (its paper: 100); of fewer classes all are candidates
_AT_ONCE = 16  # of them in one forward pass, whose gradients are kept side by side
_DUAL = {"linf": l1_norm, "l2": l2_norm}  # of a threat's norm; the others' is L-infinity


def ranked_classes(session: AttackSession, order: str, count: int | None = None) -> tuple[Tensor, Tensor | None]:
    """The wrong classes that a targeted attack tries, most promising first.

    Args:
        session: whose images.
        order: ``logits`` (the likeliest) or ``malt`` (see :func:`malt_classes`), which costs a gradient a class.
        count: at most so many of each image; all by default.

    Returns:
        (classes (B, J), rows (n,) of the images that are still to be attacked, or None where nobody has asked yet). For
        ``malt`` only those rows' classes mean anything.
    """
    if order == "logits" or session.targets is not None:
        return likely_classes(session, count), None
    rows = standing(session)
    found = malt_classes(session, rows, count)
    classes = found.new_zeros(len(session.x), found.shape[1]).index_copy(0, rows, found)
    return classes, rows


def malt_classes(session: AttackSession, rows: Tensor, count: int | None = None) -> Tensor:
    """The wrong classes whose linearized boundaries are nearest (MALT, Melamed et al. 2024, arXiv:2407.02240).

    Of the likeliest wrong classes j the score is (z_y - z_j) / |gradient of z_j - z_y|, in the norm dual to the
    threat's: how far the boundary is if the network is linear. The smallest come first.

    Args:
        session: whose images.
        rows: (n,) images, which pay a forward pass and a backward pass a candidate.
        count: at most so many of each image; all by default.

    Returns:
        (n, min(count, candidates)).

    Notes:
        Of a surface with several views or draws, the first view in one draw is ranked.
    """
    candidates = likely_classes(session, CANDIDATES, rows)
    if not len(rows):
        return candidates[:, :count]
    dual = _DUAL.get(session.threat.norm, linf_norm)
    scores = []
    for part in torch.split(candidates, _AT_ONCE, dim=1):

        def leads(x: Tensor, part: Tensor = part) -> tuple[list[Tensor], Tensor]:
            logits = session.surface.logits(x, session.y[rows])
            gaps = logits.float().gather(1, part) - logits.float().gather(1, session.y[rows, None])
            return list(gaps.unbind(1)), logits

        gradients, values, _ = session.differentiate(session.x[rows], rows, leads)
        tiny = torch.finfo(torch.float32).tiny  # without a gradient the boundary is nowhere near
        scores += [-value / dual(one).clamp_min(tiny) for one, value in zip(gradients, values, strict=True)]
    order = torch.stack(scores, 1).argsort(dim=1, stable=True)
    return candidates.gather(1, order)[:, :count]


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
