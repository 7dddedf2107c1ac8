"""JSMA: sets the two most salient pixels at a time (Papernot et al. 2016, arXiv:1511.07528)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Le
from torch import Tensor

from robustforge.attacks.core.attack import BaseAttack
from robustforge.attacks.core.nearest import Nearest
from robustforge.attacks.core.rivals import likely_classes
from robustforge.attacks.core.session import AttackSession
from robustforge.attacks.core.survivors import Iterates, Survivors, first_hits
from robustforge.ranges import PositiveShare
from robustforge.types import Threat, UserError

_ROOM = 0.01  # pixels this near to saturation have nothing to give, whatever their derivative promises


def best_pairs(target: Tensor, others: Tensor, memory: int = 1 << 22) -> tuple[Tensor, Tensor]:
    """The pair (p, q) of largest saliency (a_p + a_q) * -(b_p + b_q), with a_p + a_q > 0 and b_p + b_q < 0, exactly.

    Args:
        target: (n, P) a, what each pixel does to the target's logit; -inf for pixels that may not be touched.
        others: (n, P) b, what it does to the sum of the others'; inf for those.
        memory: pairs looked at in one go, for all images together.

    Returns:
        (pairs (n, 2) int64, exists (n,) bool: whether any pair meets the conditions).

    Notes:
        Both factors grow with either pixel's a and -b. A pixel beaten in both by two others can therefore be replaced
        in its pair by one of them, and only pixels beaten by at most one other need be paired: a handful of P.
    """
    order = target.argsort(1, descending=True)
    gain, loss = target.gather(1, order), -others.gather(1, order)
    keep = ~_beaten_twice(loss)
    count = max(2, int(keep.sum(1).max()))
    front = keep.int().topk(count, dim=1)
    barred = ~front.values.bool()
    gain = gain.gather(1, front.indices).masked_fill(barred, float("-inf"))
    loss = loss.gather(1, front.indices).masked_fill(barred, float("-inf"))
    best = torch.zeros(len(target), device=target.device)
    first, second = torch.zeros_like(order[:, 0]), torch.zeros_like(order[:, 0])
    width = max(1, memory // (len(target) * count))
    number = torch.arange(count, device=target.device)
    for begin in range(0, count, width):
        part = slice(begin, begin + width)
        up, down = gain[:, part, None] + gain[:, None], loss[:, part, None] + loss[:, None]
        allowed = (up > 0) & (down > 0) & (number[part, None] != number)
        value, place = torch.where(allowed, up * down, 0.0).flatten(1).max(1)
        better = value > best
        best = torch.where(better, value, best)
        first = torch.where(better, begin + place // count, first)
        second = torch.where(better, place % count, second)
    pairs = order.gather(1, front.indices.gather(1, torch.stack([first, second], 1)))
    return pairs, best > 0


def leading_pairs(lead: Tensor) -> tuple[Tensor, Tensor]:
    """The two largest entries.

    Args:
        lead: (n, P), what each pixel does to the target's lead; -inf for pixels that may not be touched.

    Returns:
        (pairs (n, 2), exists (n,) bool: whether their sum is above 0).
    """
    top = lead.topk(2, dim=1)
    return top.indices, top.values.sum(1) > 0


def _beaten_twice(loss: Tensor) -> Tensor:
    """(n, P) bool: at least two entries further left are no smaller."""
    start = torch.full_like(loss[:, :1], float("-inf"))
    largest = torch.cat([start, loss.cummax(1).values[:, :-1]], 1)
    # of the newcomer and the champion so far, the loser is a candidate for second place
    second = torch.minimum(loss, largest).cummax(1).values
    return torch.cat([start, second[:, :-1]], 1) >= loss


@dataclass
class _Aim(Iterates):
    """What a run carries."""

    goal: Tensor  # (m,) class aimed at
    target: Tensor  # (m, P) derivatives of its logit, or of its log-odds for single pixels
    others: Tensor | None = None  # (m, P) derivatives of the sum of the other logits, for pairs


@dataclass(frozen=True)
class JSMA(BaseAttack):
    """Two pixels at a time, chosen by what they do to the target's and the others' logits, until the system is fooled.

    Attributes:
        theta: added to each chosen pixel, in pixel units; negative darkens.
        gamma: largest share of the pixels (channels counted singly) that may be changed, in (0, 1].
        aim: with ``target=None``, which class is aimed at while any wrong answer counts: ``next``, ``runner_up``, or
            ``best`` for all of them side by side, the first to fool (that is, with the fewest pixels) taken.
        selection: ``pair``, the two pixels of the largest saliency together (paper), or ``single``, the two that
            each raise the log-odds of the target most, z_t - log sum of exp z_j of the others: half the backward
            passes, and smaller perturbations.
        relax: for pairs: where none raises the target and lowers the others, take the two pixels that raise the
            target's lead over the others' mean most, as long as they raise it; False gives the image up, as in the
            paper.

    Raises:
        UserError: settings under which it would do nothing.

    Notes:
        Derivatives are of the logits, not of probabilities, which saturate; a logit alone (as ART has it for single
        pixels) rises with pixels that raise its rivals more. Mean L2 on 64 digits of a robust small CNN: pairs 6.8,
        single pixels 5.8, single pixels by the target's logit 7.1. An L0 attack: pixels are changed by theta
        whatever the budget is, and an image outside it is cut to it at the end. A pixel stays in the search until it is
        saturated. Images that the paper gives up are what other libraries' looser rules break: hence ``relax``.
    """

    norms = ("linf", "l2", "l0")
    name: str = "jsma"
    theta: Annotated[float, Ge(-1), Le(1)] = 1.0
    gamma: PositiveShare = 1.0
    aim: Literal["next", "runner_up", "best"] = "runner_up"
    selection: Literal["pair", "single"] = "pair"
    relax: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.theta:
            raise UserError(f"Attack {self.name} has theta=0, which changes nothing: give a step in [-1, 1].")

    def fits(self, shape: Sequence[int], num_classes: int, threat: Threat) -> None:
        """See :class:`robustforge.attacks.core.attack.Attack`."""
        super().fits(shape, num_classes, threat)
        if math.prod(shape) < 2:
            raise UserError(f"Attack {self.name} changes two pixels at a time, and an image has one: choose another.")

    def perturb(self, session: AttackSession, seed: int) -> Tensor:
        """See :class:`robustforge.attacks.core.attack.BaseAttack`."""
        self.fits(session.x.shape[1:], session.classes(), session.threat)
        nearest = Nearest(session, "l2")
        rows = nearest.standing()
        if not len(rows):
            return nearest.result()
        rows, goal = self._goals(session, rows)
        x = session.x[rows]
        runs, s = Survivors(session, rows, x), _Aim(x, goal, x)
        for _ in runs.steps(max(1, int(self.gamma * x[0].numel()) // 2)):
            s.target, s.others, logits = self._derivatives(session, s.x, runs.rows, s.goal)
            s = runs.judge(s, session.suspects(logits, runs.rows))
            if not len(runs.rows):
                break
            pairs, exists = self._chosen(s, logits.shape[1] - 1)
            step = torch.where(exists[:, None], self.theta, 0.0).expand(-1, 2)
            s.x = s.x.flatten(1).scatter_add(1, pairs, step).clamp(0, 1).view_as(s.x)
            s = runs.drop(s, ~exists)
        runs.judge(s)
        # of an image's aims that fool at the same step, the first is taken
        first = first_hits(rows, runs.fooled.nonzero().flatten(), len(session.x))
        first = first[first < len(rows)]
        nearest.keep(runs.ends[first], rows[first])
        return nearest.result()

    def _goals(self, session: AttackSession, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Rows, several times for ``best``, and the class each aims at."""
        if self.aim == "next" and session.targets is None:
            return rows, (session.y[rows] + 1) % session.logits(session.x[rows], rows).shape[1]
        classes = likely_classes(session, None if self.aim == "best" else 1, rows)
        return rows.repeat_interleave(classes.shape[1]), classes.flatten()

    def _chosen(self, s: _Aim, rivals: int) -> tuple[Tensor, Tensor]:
        """(pixels (m, 2) to change, (m,) bool: whether there are any); ``rivals`` is the number of other classes."""
        sign, flat = 1.0 if self.theta > 0 else -1.0, s.x.flatten(1)
        spent = flat >= 1 - _ROOM if self.theta > 0 else flat <= _ROOM
        raises = (sign * s.target).masked_fill(spent, float("-inf"))
        if s.others is None:
            return leading_pairs(raises)
        others = (sign * s.others).masked_fill(spent, float("inf"))
        pairs, exists = best_pairs(raises, others)
        if self.relax and not bool(exists.all()):
            loose, found = leading_pairs(raises - others / rivals)
            pairs, exists = torch.where(exists[:, None], pairs, loose), exists | found
        return pairs, exists

    def _derivatives(
        self, session: AttackSession, x_adv: Tensor, rows: Tensor, goal: Tensor
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """((n, P) of the target's logit or log-odds, (n, P) of the sum of the others' for pairs, logits)."""
        pair = self.selection == "pair"

        def values(leaf: Tensor) -> tuple[list[Tensor], Tensor]:
            logits = session.surface.logits(leaf, session.y[rows]).float()
            target = logits.gather(1, goal[:, None]).squeeze(1)
            if pair:
                return [target, logits.sum(1) - target], logits
            return [target - logits.scatter(1, goal[:, None], float("-inf")).logsumexp(1)], logits

        (target, *others), (gain, *loss), logits = session.differentiate(x_adv, rows, values)
        # the trace is of the first of an image's aims; what is raised: the log-odds, or the lead over the others' mean
        first, rivals = torch.ones_like(rows, dtype=torch.bool), logits.shape[1] - 1
        first[1:] = rows[1:] != rows[:-1]
        lead, value = (target - others[0] / rivals, gain - loss[0] / rivals) if pair else (target, gain)
        session.record(rows[first], lead[first], value[first])
        return target.flatten(1), others[0].flatten(1) if pair else None, logits.detach()
