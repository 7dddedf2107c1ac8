"""APGD: projected gradient ascent that chooses its own step (Croce & Hein 2020, arXiv:2003.01690, Algorithm 1)."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from robustforge.attacks.core.attack import BaseAttack
from robustforge.attacks.core.geometry import ascent_direction, per_sample, project, random_start
from robustforge.attacks.core.lockstep import Lockstep, goals, hopeless, in_rounds, likely_classes
from robustforge.attacks.core.session import AttackSession
from robustforge.attacks.core.surface import Objective
from robustforge.losses.classification import cross_entropy_per_sample, dlr, dlr_targeted, margin, margin_targeted
from robustforge.randomness import SampleRandom
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

    Raises:
        UserError: settings under which it would do nothing.

    Notes:
        The released code takes one gradient more than it uses; ours ends with a forward pass. The runs of the target
        classes advance side by side instead of one after the other, and the first to fool ends them all. DLR needs
        three classes and its targeted form four: with fewer, a warning says that the margin is used.
    """

    name: str = "apgd"
    steps: int = 100
    restarts: int = 1
    loss: str = "cross_entropy"
    n_target_classes: int = 0
    give_up: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps < 1 or self.restarts < 1:
            raise UserError(
                f"Attack {self.name} has steps={self.steps} and restarts={self.restarts}: give at least 1 of each."
            )
        if self.loss not in UNTARGETED:
            raise UserError(f"Attack {self.name} has loss='{self.loss}': choose one of {', '.join(UNTARGETED)}.")
        if self.n_target_classes < 0:
            raise UserError(f"Attack {self.name} has n_target_classes={self.n_target_classes}: give 0 or more.")
        if self.give_up and self.loss == "cross_entropy":
            raise UserError(f"Attack {self.name} has give_up=true, which needs a loss of 0 at success: dlr or margin.")

    def perturb(self, session: AttackSession, seed: int) -> Tensor:
        """See :class:`robustforge.attacks.core.attack.BaseAttack`."""
        if session.threat.eps == 0 or not len(session.x):
            return session.x
        classes = likely_classes(session, self.n_target_classes) if self.n_target_classes else None
        lanes = 1 if classes is None else classes.shape[1]
        objective = self._objective(session)

        def run(rows: Tensor, numbers: Sequence[int]) -> tuple[Tensor, Tensor]:
            start = torch.cat([self._start(session, rows, number, seed) for number in numbers])
            goal = None if classes is None else goals(session, classes, rows, numbers)
            return ascend_adaptively(
                session,
                start,
                rows.repeat(len(numbers)),
                steps=self.steps,
                objective=objective,
                goal=goal,
                give_up=self.give_up,
            )

        return in_rounds(session, lanes, self.restarts, run)

    def _start(self, session: AttackSession, rows: Tensor, number: int, seed: int) -> Tensor:
        x = session.x[rows]
        start = random_start(x, session.index[rows], session.threat, SampleRandom(seed, self.name, number))
        return project(start, x, session.threat)

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


def ascend_adaptively(
    session: AttackSession,
    start: Tensor,
    rows: Tensor,
    *,
    steps: int,
    objective: Objective,
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
    runs = Lockstep(session, rows, start)
    review = checkpoints(steps)
    s = _first_state(start, session.x[rows], 2 * session.threat.eps)
    if goal is not None:
        s["goal"] = goal
    for number in range(steps):
        s["gradient"], logits, value = session.gradient(s["x"], runs.rows, objective, s.get("goal"))
        keep = runs.judge(s["x"], session.suspects(logits, runs.rows))
        if keep is not None:
            s, value = _pick(s, keep), value[keep]
        _note(s, value)
        if number in review:
            if give_up:
                s = _drop_hopeless(runs, s, review[number], steps - number)
            _halve(s, review[number])
        if not len(runs.rows):
            return runs.ends, runs.fooled
        share = MOMENTUM if number else 1.0
        ahead = s["x"] + per_sample(s["step"], s["x"]) * ascent_direction(s["gradient"], session.threat)
        ahead = project(ahead, s["clean"], session.threat)
        ahead = s["x"] + share * (ahead - s["x"]) + (1 - share) * (s["x"] - s["previous"])
        s["previous"], s["x"] = s["x"], project(ahead, s["clean"], session.threat)
    keep = runs.judge(s["x"], torch.ones_like(runs.rows, dtype=torch.bool))
    runs.ends[runs.place] = s["best"] if keep is None else s["best"][keep]
    return runs.ends, runs.fooled


def _pick(s: dict[str, Tensor], keep: Tensor) -> dict[str, Tensor]:
    return {name: tensor[keep] for name, tensor in s.items()}


def _drop_hopeless(runs: Lockstep, s: dict[str, Tensor], spent: int, left: int) -> dict[str, Tensor]:
    over = hopeless(s["best_value"], s["reviewed_value"], spent, left)
    runs.ends[runs.place[over]] = s["best"][over]
    keep = runs.drop(over)
    return s if keep is None else _pick(s, keep)


def _first_state(start: Tensor, clean: Tensor, step: float) -> dict[str, Tensor]:
    """What each run remembers, every entry (n, ...)."""
    lowest = torch.full((len(start),), float("-inf"), device=start.device)
    return {
        "x": start,
        "previous": start,
        "clean": clean,
        "gradient": start,
        "step": torch.full_like(lowest, step),
        "value": -lowest,  # of the iterate before
        "raised": torch.zeros_like(lowest),  # steps of this window that raised the objective
        "best": start,
        "best_gradient": start,
        "best_value": lowest,
        "reviewed_value": lowest,
        "halved": torch.ones_like(lowest, dtype=torch.bool),  # at the last review; the first has none before it
    }


def _note(s: dict[str, Tensor], value: Tensor) -> None:
    """Remembers what is best so far."""
    better = value > s["best_value"]
    wide = per_sample(better, s["x"])
    s["best"] = torch.where(wide, s["x"], s["best"])
    s["best_gradient"] = torch.where(wide, s["gradient"], s["best_gradient"])
    s["best_value"] = torch.where(better, value, s["best_value"])
    s["raised"] = s["raised"] + (value > s["value"])
    s["value"] = value


def _halve(s: dict[str, Tensor], window: int) -> None:
    """Halves steps by conditions 1 and 2 of Sec. 3.2, and sends those runs back to their best iterate."""
    no_better = ~s["halved"] & (s["best_value"] <= s["reviewed_value"])
    stuck = (s["raised"] <= PROGRESS * window) | no_better  # "<" in the paper, "<=" in its code
    wide = per_sample(stuck, s["x"])
    s["x"] = torch.where(wide, s["best"], s["x"])
    s["gradient"] = torch.where(wide, s["best_gradient"], s["gradient"])
    s["step"] = torch.where(stuck, s["step"] / 2, s["step"])
    s["halved"], s["reviewed_value"], s["raised"] = stuck, s["best_value"], torch.zeros_like(s["raised"])
