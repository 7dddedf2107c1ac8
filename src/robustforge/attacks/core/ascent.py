"""Projected gradient ascent, written once: FGSM, R+FGSM, BIM, MIM and PGD are its settings."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from robustforge.attacks.core.geometry import l1_norm, limits, per_sample, step_
from robustforge.attacks.core.session import AttackSession, check_precision
from robustforge.attacks.core.surface import Objective
from robustforge.losses.classification import cross_entropy_per_sample, margin
from robustforge.types import UserError

OBJECTIVES: dict[str, Objective] = {"cross_entropy": cross_entropy_per_sample, "margin": margin}


def check_settings(
    name: str, loss: str, precision: str, steps: int = 1, restarts: int = 1, step_size: float | None = None
) -> None:
    """Refuses settings under which an attack would do nothing and a defense would look robust.

    Raises:
        UserError: which setting, and what it may be.
    """
    if steps < 1 or restarts < 1:
        raise UserError(f"Attack {name} has steps={steps} and restarts={restarts}: give at least 1 of each.")
    if step_size is not None and not step_size >= 0:
        raise UserError(f"Attack {name} has step_size={step_size}: give a length of 0 or more in pixel units, or null.")
    check_choice(name, "loss", loss, tuple(OBJECTIVES))
    check_precision(name, precision)


def check_choice(name: str, setting: str, value: str, choices: tuple[str, ...]) -> None:
    """Refuses a ``value`` that a ``setting`` of the attack ``name`` does not have.

    Raises:
        UserError: not one of ``choices``.
    """
    if value not in choices:
        raise UserError(f"Attack {name} has {setting}='{value}': choose one of {', '.join(choices)}.")


def ascend(
    session: AttackSession,
    start: Tensor,
    rows: Tensor,
    *,
    steps: int,
    step_size: float,
    objective: Objective,
    early_stop: bool,
    goal: Tensor | None = None,
    momentum: float = 0.0,
) -> Tensor:
    """Projected ascent of some images.

    Args:
        session: the surface, the images and the budget.
        start: (n, C, H, W) first iterates.
        rows: (n,) whose they are; a row may stand several times (restarts).
        steps: number of steps.
        step_size: in pixel units, in the threat's norm.
        objective: what is maximized.
        early_stop: stop an image at its first iterate that fools the system, and with it those further down that
            start from the same image: the earlier restart counts, however many run side by side.
        goal: (n, ...) second argument of ``objective``; labels (or the session's targets) by default.
        momentum: decay of the accumulated gradient (Dong et al. 2018, arXiv:1710.06081, Eq. 6); 0 for none.

    Returns:
        (n, C, H, W): last, or first fooling, iterates.
    """
    result, place, current, clean = start.clone(), torch.arange(len(rows), device=start.device), start, session.x[rows]
    box = limits(clean, session.threat)
    velocity = torch.zeros_like(start) if momentum else None
    for _ in range(steps):
        gradient, logits, _ = session.gradient(current, rows, objective, goal)
        if early_stop:
            keep = _still_standing(session, current, logits, rows)
            if keep is not None:
                result[place] = current
                place, rows, current, clean, gradient = (t[keep] for t in (place, rows, current, clean, gradient))
                goal = None if goal is None else goal[keep]
                velocity = None if velocity is None else velocity[keep]
                box = None if box is None else (box[0][keep], box[1][keep])
                if not len(rows):
                    return result
        if velocity is not None:
            velocity = momentum * velocity + gradient / per_sample(l1_norm(gradient), gradient)
            gradient = velocity.clone()
        current = step_(current, gradient, step_size, clean, session.threat, box)
    result[place] = current
    return result


def _still_standing(session: AttackSession, current: Tensor, logits: Tensor, rows: Tensor) -> Tensor | None:
    """Positions that go on, or None for all of them."""
    suspects = session.suspects(logits, rows).nonzero().flatten()
    if not len(suspects):
        return None
    # the attacker's pass only nominates; the system's float32 answer decides who stops
    done = suspects[session.fools(current[suspects], rows[suspects])]
    if not len(done):
        return None
    first = torch.full((len(session.x),), len(rows), device=rows.device)
    first.scatter_reduce_(0, rows[done], done, "amin")
    keep = torch.arange(len(rows), device=rows.device) < first[rows]
    return keep.nonzero().flatten()


def climb(
    session: AttackSession,
    starts: Callable[[Tensor, int], Tensor],
    *,
    restarts: int,
    early_stop: bool,
    run: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    """Restarts around an ascent: the first one alone, the others side by side on what still stands.

    Args:
        session: the surface, the images and the budget.
        starts: (rows (n,), restart) -> first iterates (n, C, H, W).
        restarts: how many.
        early_stop: leave images alone that the system already gets wrong.
        run: (first iterates, rows) -> iterates, such as :func:`ascend`.

    Returns:
        (B, C, H, W): of each image the first restart that fooled, else the last one.
    """
    best = session.x.clone()
    if session.threat.eps == 0 or not len(best):
        return best
    rows = (~session.fools(best, count=False)).nonzero().flatten() if early_stop else session.everyone()
    if len(rows):
        best[rows] = run(starts(rows, 0), rows)
    session.tracing = False
    for restart_rows in _survivors(session, best, rows, restarts):
        count = len(restart_rows)
        # restart 1 of all rows first: an ascent drops later restarts of a row once an earlier one has fooled
        tiled = restart_rows.repeat(restarts - 1)
        begin = torch.cat([starts(restart_rows, restart) for restart in range(1, restarts)])
        ends = run(begin, tiled)
        fooled = session.fools(ends, tiled).view(restarts - 1, count)
        # argmax finds the first of equal values
        choice = torch.where(fooled.any(0), fooled.int().argmax(0), restarts - 2)
        best[restart_rows] = ends[choice * count + torch.arange(count, device=best.device)]
    return best


def _survivors(session: AttackSession, best: Tensor, rows: Tensor, restarts: int) -> list[Tensor]:
    """Rows that the first restart left standing, in chunks whose restarts together fill one batch."""
    if restarts == 1 or not len(rows):
        return []
    standing = rows[~session.fools(best[rows], rows)]
    size = max(1, len(session.x) // (restarts - 1))
    return list(torch.split(standing, size)) if len(standing) else []
