"""Projected gradient ascent, written once: FGSM, BIM and PGD are its settings."""

from __future__ import annotations

import torch
from torch import Tensor

from robustforge.attacks.engine import PRECISIONS, Query, check_images, finish, frozen
from robustforge.attacks.geometry import ascent_direction, project, random_start
from robustforge.attacks.randomness import SampleRandom
from robustforge.attacks.surfaces import Objective, Surface
from robustforge.losses.classification import cross_entropy_per_sample, margin
from robustforge.types import AttackResult, Threat, UserError

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
    if loss not in OBJECTIVES:
        raise UserError(f"Attack {name} has loss='{loss}': choose one of {', '.join(OBJECTIVES)}.")
    if precision not in PRECISIONS:
        raise UserError(f"Attack {name} has precision='{precision}': choose one of {', '.join(PRECISIONS)}.")


def ascend(
    query: Query,
    x: Tensor,
    y: Tensor,
    start: Tensor,
    rows: Tensor,
    *,
    steps: int,
    step_size: float,
    objective: Objective,
    early_stop: bool,
) -> Tensor:
    """Projected ascent of the images ``rows`` of the batch under attack.

    Args:
        query: the surface, the budget and the counters.
        x: (n, C, H, W) clean images.
        y: (n,) labels, or any per-image targets of ``objective`` when ``early_stop`` is off (TRADES hands in the
            clean logits).
        start: (n, C, H, W) first iterates.
        rows: (n,) their positions in the batch, for the counters.
        steps: number of steps.
        step_size: in pixel units, in the threat's norm.
        objective: what is maximised.
        early_stop: stop an image at its first iterate that fools the system.

    Returns:
        (n, C, H, W): last, or first fooling, iterates.
    """
    result = start.clone()
    active = torch.arange(len(rows), device=x.device)
    for _ in range(steps):
        if not len(active):
            break
        current = result[active]
        gradient, logits, _ = query.gradient(current, y[active], rows[active], objective)
        if early_stop:
            suspects = (logits.argmax(1) != y[active]).nonzero().flatten()
            if len(suspects):
                # the attacker's pass only nominates; the system's float32 answer decides who stops
                done = query.fools(current[suspects], y[active][suspects], rows[active][suspects])
                keep = torch.ones(len(active), dtype=torch.bool, device=x.device)
                keep[suspects[done]] = False
                active, current, gradient = active[keep], current[keep], gradient[keep]
        moved = current + step_size * ascent_direction(gradient, query.threat)
        result[active] = project(moved, x[active], query.threat)
    return result


def gradient_attack(
    surface: Surface,
    x: Tensor,
    y: Tensor,
    threat: Threat,
    *,
    name: str,
    steps: int,
    step_size: float,
    index: Tensor | None = None,
    seed: int = 0,
    restarts: int = 1,
    random_init: bool = True,
    loss: str = "cross_entropy",
    early_stop: bool = True,
    precision: str = "auto",
    threshold: float | None = None,
) -> AttackResult:
    """Projected gradient ascent with restarts on survivors.

    Args:
        surface: what is differentiated and what judges.
        x: clean images in [0, 1], (B, C, H, W).
        y: true labels, (B,).
        threat: ball the result stays in.
        name: of the attack, part of the random address.
        steps: gradient steps a restart.
        step_size: length of a step in pixel units (in the threat's norm).
        index: (B,) sample numbers for the random draws; default 0..B-1.
        seed: of the random draws.
        restarts: runs from fresh random starts; later ones attack only what still stands.
        random_init: start at a uniform point of the ball instead of at ``x``.
        loss: ``cross_entropy`` or ``margin``.
        early_stop: stop an image at its first iterate that fools the system. Without it every image takes every step
            and the last iterate is returned (what most released code does).
        precision: of the attacker's passes: ``auto``, ``float32`` or ``bf16``.
        threshold: risk above which the attacked system rejects.

    Returns:
        AttackResult; an image that no restart fooled carries its last iterate.
    """
    check_images(x)
    index = torch.arange(len(x), device=x.device) if index is None else index
    query = Query(surface, threat, precision, threshold)  # type: ignore[arg-type]
    query.start(len(x), x.device)
    with frozen(surface.modules):
        best = x.detach().clone()
        # an image the system already gets wrong needs no attack when stopping early: it counts as it stands
        fooled_now = query.fools(best, y) if early_stop else torch.zeros(len(x), dtype=torch.bool, device=x.device)
        for restart in range(restarts if threat.eps > 0 else 0):
            rows = (~fooled_now).nonzero().flatten()
            if not len(rows):
                break
            start = x[rows]
            if random_init:
                start = random_start(start, index[rows], threat, SampleRandom(seed, name, restart))
                start = project(start, x[rows], threat)
            best[rows] = ascend(
                query, x[rows], y[rows], start, rows,
                steps=steps, step_size=step_size, objective=OBJECTIVES[loss], early_stop=early_stop,
            )  # fmt: skip
            if early_stop or restart + 1 < restarts:
                fooled_now[rows] = query.fools(best[rows], y[rows], rows)
        return finish(query, x, best, y)
