"""APGD: projected gradient ascent that chooses its own step (Croce & Hein 2020, arXiv:2003.01690, Algorithm 1)."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from robustforge.attacks.apgd_l1 import ascend_sparsely
from robustforge.attacks.core.attack import BaseAttack
from robustforge.attacks.core.geometry import ascent_direction, per_sample, project
from robustforge.attacks.core.restarts import first_then_others, in_rounds
from robustforge.attacks.core.rivals import Order, goals, ranked_classes
from robustforge.attacks.core.session import AttackSession
from robustforge.attacks.core.surface import Objective
from robustforge.attacks.core.survivors import Iterates, Survivors, hopeless
from robustforge.losses.classification import cross_entropy_per_sample, dlr, dlr_targeted, margin, margin_targeted
from robustforge.ranges import NonNegativeInt, PositiveInt
from robustforge.types import UserError

MOMENTUM = 0.75  # share of the new step; the rest is the step before
PROGRESS = 0.75  # share of a window's steps that must raise the loss, or the step is halved
UNTARGETED: dict[str, Objective] = {"cross_entropy": cross_entropy_per_sample, "dlr": dlr, "margin": margin}
# of (logits, labels, wrong classes)
TARGETED: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "cross_entropy": lambda logits, y, target: -cross_entropy_per_sample(logits, target),
    "dlr": dlr_targeted,
    "margin": margin_targeted,
}


@dataclass(frozen=True)
class APGD(BaseAttack):
    """Momentum steps of 2 eps at first, halved for each image whenever it makes no progress.

    Attributes:
        steps: gradients a run.
        restarts: random starts; later ones attack only survivors, side by side.
        loss: ``cross_entropy``, ``dlr`` or ``margin``.
        give_up: end runs that would not get there at the pace of their last window (``dlr`` and ``margin`` only): not
            in the paper, quicker, and possibly weaker.
        n_target_classes: 0 for the untargeted loss; else how many of the most likely wrong classes are aimed at, each
            in a run of its own (APGD-T: 9 with ``dlr``). An image is done as soon as it is wrong in any way.
        order: which wrong classes come first: ``logits``, the likeliest, or ``malt``, those of the nearest linearized
            boundaries (arXiv:2407.02240), where fewer targets do.
        skip_target_classes: how many of the first of them are left out, because another attack of an ensemble has aimed
            at them.

    Raises:
        UserError: settings under which it would do nothing.

    Notes:
        The released code takes one gradient more than it uses; ours ends with a forward pass. The runs of the target
        classes advance side by side instead of one after the other, and the first to fool ends them all. DLR needs
        three classes and its targeted form four: with fewer, a warning says that the margin is used.
    """

    norms = ("linf", "l2", "l1")
    name: str = "apgd"
    steps: PositiveInt = 100
    restarts: PositiveInt = 1
    loss: Literal["cross_entropy", "dlr", "margin"] = "cross_entropy"
    n_target_classes: NonNegativeInt = 0
    order: Order = "logits"
    skip_target_classes: NonNegativeInt = 0
    give_up: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.skip_target_classes and self.skip_target_classes >= self.n_target_classes:
            raise UserError(
                f"Attack {self.name} has skip_target_classes={self.skip_target_classes} of "
                f"n_target_classes={self.n_target_classes}: none is left to aim at."
            )
        if self.give_up and self.loss == "cross_entropy":
            raise UserError(f"Attack {self.name} has give_up=true, which needs a loss of 0 at success: dlr or margin.")

    def perturb(self, session: AttackSession, seed: int) -> Tensor:
        """See :class:`robustforge.attacks.core.attack.BaseAttack`."""
        classes, rows = None, None
        if self.n_target_classes:
            classes, rows = ranked_classes(session, self.order, self.n_target_classes)
            classes = classes[:, self.skip_target_classes :]
        lanes = 1 if classes is None else classes.shape[1]
        objective = self._objective(session)

        def run(begin: Tensor, rows: Tensor, numbers: Sequence[int]) -> tuple[Tensor, Tensor]:
            goal = None if classes is None else goals(session, classes, rows, numbers)
            if session.threat.norm == "l1":
                return ascend_sparsely(session, begin, rows, self.steps, objective, goal=goal)
            return ascend_adaptively(session, begin, rows, self.steps, objective, goal=goal, give_up=self.give_up)

        start = partial(self.random_start, session, seed)
        return in_rounds(session, first_then_others(lanes, self.restarts), start, run, rows=rows)

    def _objective(self, session: AttackSession) -> Objective:
        """The loss as the engine calls it; a targeted goal is (n, 2): labels and wrong classes."""
        loss = self.loss
        if loss == "dlr" and (classes := session.classes()) < (4 if self.n_target_classes else 3):
            warnings.warn(
                f"Attack {self.name}: dlr is not defined for {classes} classes, margin is used.", stacklevel=2
            )
            loss = "margin"
        if not self.n_target_classes:
            return UNTARGETED[loss]
        return lambda logits, goal: TARGETED[loss](logits, goal[:, 0], goal[:, 1])


def checkpoints(steps: int) -> dict[int, int]:
    """After how many steps step sizes are reviewed, and how many steps each review looks back on.

    The first window is 22 % of all steps, each later one 3 % shorter than the one before, and none below 6 % (Sec. 3.2,
    rounded as in the released code).
    """
    window, shrink, least = (max(int(share * steps), 1) for share in (0.22, 0.03, 0.06))
    found, at = {}, window
    while at < steps:
        found[at] = window
        window = max(window - shrink, least)
        at += window
    return found


@dataclass
class _Run(Iterates):
    """What a run remembers (Algorithm 1); f is the objective."""

    clean: Tensor  # (m, C, H, W), as the next four
    previous: Tensor  # iterate before x
    gradient: Tensor  # of f at x
    best: Tensor  # iterate of the largest f
    best_gradient: Tensor
    step: Tensor  # (m,) eta, as all that follow but the last
    f: Tensor  # at x
    f_before: Tensor  # at the iterate before
    f_best: Tensor
    f_reviewed: Tensor  # the best at the last review
    raised: Tensor  # how many steps of this window raised f
    halved: Tensor  # bool, the step at the last review; the first review has none before it
    goal: Tensor | None  # (m, ...) second argument of the objective

    @classmethod
    def begin(cls, start: Tensor, clean: Tensor, step: float, goal: Tensor | None) -> _Run:
        """The state before the first step: ``start`` and ``clean`` (m, C, H, W), ``step`` in pixel units."""
        lowest = torch.full((len(start),), float("-inf"), device=start.device)
        return cls(
            x=start,
            clean=clean,
            previous=start,
            gradient=start,
            best=start,
            best_gradient=start,
            step=torch.full_like(lowest, step),
            f=lowest,
            f_before=-lowest,
            f_best=lowest,
            f_reviewed=lowest,
            raised=torch.zeros_like(lowest),
            halved=torch.ones_like(lowest, dtype=torch.bool),
            goal=goal,
        )

    def note_best(self) -> None:
        """Remembers the iterate of the largest f, and whether this step raised f."""
        better = self.f > self.f_best
        wide = per_sample(better, self.x)
        self.best = torch.where(wide, self.x, self.best)
        self.best_gradient = torch.where(wide, self.gradient, self.best_gradient)
        self.f_best = torch.where(better, self.f, self.f_best)
        self.raised = self.raised + (self.f > self.f_before)
        self.f_before = self.f

    def review(self, window: int) -> None:
        """Halves steps by conditions 1 and 2 of Sec. 3.2, and sends those runs back to their best iterate."""
        no_better = ~self.halved & (self.f_best <= self.f_reviewed)
        stuck = (self.raised <= PROGRESS * window) | no_better  # "<" in the paper, "<=" in its code
        wide = per_sample(stuck, self.x)
        self.x = torch.where(wide, self.best, self.x)
        self.gradient = torch.where(wide, self.best_gradient, self.gradient)
        self.step = torch.where(stuck, self.step / 2, self.step)
        self.halved, self.f_reviewed, self.raised = stuck, self.f_best, torch.zeros_like(self.raised)


def ascend_adaptively(
    session: AttackSession,
    start: Tensor,
    rows: Tensor,
    steps: int,
    objective: Objective,
    *,
    goal: Tensor | None = None,
    give_up: bool = False,
) -> tuple[Tensor, Tensor]:
    """APGD of some runs; an image stops at the first iterate, in any of its runs, that the system judges fooled.

    Args:
        session: the surface, the images and the budget.
        start: (n, C, H, W) first iterates.
        rows: (n,) whose they are; a row may stand several times.
        steps: gradients.
        objective: what is maximized.
        goal: (n, ...) its second argument; labels (or the session's targets) by default.
        give_up: end runs that look hopeless; ``objective`` is positive on success.

    Returns:
        (images (n, C, H, W): first fooling iterates, else those of the highest objective; (n,) bool: which fooled).
    """
    threat, windows = session.threat, checkpoints(steps)
    runs, s = Survivors(session, rows, start), _Run.begin(start, session.x[rows], 2 * threat.eps, goal)
    for number in runs.steps(steps):
        s.gradient, logits, s.f = session.gradient(s.x, runs.rows, objective, s.goal)
        s = runs.judge(s, session.suspects(logits, runs.rows))
        s.note_best()
        if number in windows:
            if give_up:
                s = runs.drop(s, hopeless(s.f_best, s.f_reviewed, windows[number], steps - number), s.best)
            s.review(windows[number])
        share = MOMENTUM if number else 1.0
        z = project(s.x + per_sample(s.step, s.x) * ascent_direction(s.gradient, threat), s.clean, threat)
        ahead = s.x + share * (z - s.x) + (1 - share) * (s.x - s.previous)
        s.previous, s.x = s.x, project(ahead, s.clean, threat)
    s = runs.judge(s)
    return runs.finish(s.best), runs.fooled
