"""JSMA: sets the two most salient pixels at a time (Papernot et al. 2016, arXiv:1511.07528)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robustforge.attacks.core.attack import BaseAttack
from robustforge.attacks.core.session import AttackSession
from robustforge.attacks.nearest import Nearest
from robustforge.types import UserError

_ROOM = 0.01  # pixels this near to saturation have nothing to give, whatever their derivative promises
AIMS = ("next", "runner_up", "best")


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


@dataclass(frozen=True)
class JSMA(BaseAttack):
    """Two pixels at a time, chosen by what they do to the target's and the others' logits, until the system is fooled.

    Attributes:
        theta: added to each chosen pixel, in pixel units; negative darkens.
        gamma: largest share of the pixels (channels counted singly) that may be changed, in (0, 1].
        aim: with ``target=None``, which class is aimed at while any wrong answer counts: ``next``, ``runner_up``, or
            ``best`` for all of them side by side, the first to fool (that is, with the fewest pixels) taken.
        relax: where no pair raises the target and lowers the others, take the two pixels that raise the target's lead
            over the others' mean most, as long as they raise it; False gives the image up, as in the paper.

    Raises:
        UserError: settings under which it would do nothing.

    Notes:
        Derivatives are of the logits, not of probabilities, which saturate. An L0 attack: pixels are changed by theta
        whatever the budget is, and an image outside it is cut to it at the end. A pixel stays in the search until it is
        saturated. Images that the paper gives up are what other libraries' looser rules break: hence ``relax``.
    """

    name: str = "jsma"
    theta: float = 1.0
    gamma: float = 1.0
    aim: str = "runner_up"
    relax: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < abs(self.theta) <= 1 or not 0 < self.gamma <= 1:
            raise UserError(
                f"Attack {self.name} has theta={self.theta} and gamma={self.gamma}: give a step between -1 and 1, "
                "not 0, and a share of the pixels in (0, 1]."
            )
        if self.aim not in AIMS:
            raise UserError(f"Attack {self.name} has aim='{self.aim}': choose one of {', '.join(AIMS)}.")

    def perturb(self, session: AttackSession, seed: int) -> Tensor:
        """See :class:`robustforge.attacks.core.attack.BaseAttack`."""
        nearest = Nearest(session, "l2")
        rows = nearest.standing()
        if not len(rows):
            return nearest.result()
        rows, goal = self._goals(session, rows)
        x_adv, sign = session.x[rows], 1.0 if self.theta > 0 else -1.0
        for _ in range(max(1, int(self.gamma * x_adv[0].numel()) // 2)):
            target, others, logits = self._derivatives(session, x_adv, rows, goal)
            going = self._still_standing(session, nearest, x_adv, rows, session.suspects(logits, rows))
            rows, goal, x_adv, target, others = (t[going] for t in (rows, goal, x_adv, target, others))
            if not len(rows):
                return nearest.result()
            flat = x_adv.flatten(1)
            spent = flat >= 1 - _ROOM if self.theta > 0 else flat <= _ROOM
            raises = (sign * target).masked_fill(spent, float("-inf"))
            others = (sign * others).masked_fill(spent, float("inf"))
            pairs, exists = best_pairs(raises, others)
            if self.relax and not bool(exists.all()):
                loose, found = leading_pairs(raises - others / (logits.shape[1] - 1))
                pairs, exists = torch.where(exists[:, None], pairs, loose), exists | found
            step = torch.where(exists[:, None], self.theta, 0.0).expand(-1, 2)
            x_adv = flat.scatter_add(1, pairs, step).clamp(0, 1).view_as(x_adv)
            if not bool(exists.all()):
                rows, goal, x_adv = rows[exists], goal[exists], x_adv[exists]
                if not len(rows):
                    return nearest.result()
        self._still_standing(session, nearest, x_adv, rows, torch.ones_like(rows, dtype=torch.bool))
        return nearest.result()

    def _goals(self, session: AttackSession, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Rows, several times for ``best``, and the class each aims at."""
        if session.targets is not None:
            return rows, session.targets[rows]
        wrong = session.logits(session.x[rows], rows).scatter(1, session.y[rows, None], float("-inf"))
        if self.aim == "next":
            return rows, (session.y[rows] + 1) % wrong.shape[1]
        classes = wrong.topk(wrong.shape[1] - 1 if self.aim == "best" else 1, dim=1).indices
        return rows.repeat_interleave(classes.shape[1]), classes.flatten()

    @staticmethod
    def _derivatives(
        session: AttackSession, x_adv: Tensor, rows: Tensor, goal: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """((n, P) of the target's logit, (n, P) of the sum of the others', logits)."""

        def values(leaf: Tensor) -> tuple[list[Tensor], Tensor]:
            logits = session.surface.logits(leaf, session.y[rows]).float()
            target = logits.gather(1, goal[:, None]).squeeze(1)
            return [target, logits.sum(1) - target], logits

        (target, others), (gain, loss), logits = session.differentiate(x_adv, rows, values)
        # the trace is of the first of an image's aims; the lead over the others' mean is what the saliency map raises
        first, rivals = torch.ones_like(rows, dtype=torch.bool), logits.shape[1] - 1
        first[1:] = rows[1:] != rows[:-1]
        session.record(rows[first], (target - others / rivals)[first], (gain - loss / rivals)[first])
        return target.flatten(1), others.flatten(1), logits.detach()

    @staticmethod
    def _still_standing(
        session: AttackSession, nearest: Nearest, x_adv: Tensor, rows: Tensor, suspects: Tensor
    ) -> Tensor:
        """Positions that go on; of those of one image that fool, the first is kept and all others stop too."""
        places = suspects.nonzero().flatten()
        if len(places):
            done = places[session.fools(x_adv[places], rows[places])]
            first = torch.full((len(session.x),), len(rows), device=rows.device)
            first.scatter_reduce_(0, rows[done], done, "amin")
            chosen = first[first < len(rows)]
            nearest.keep(x_adv[chosen], rows[chosen])
        return nearest.distance[rows].isinf().nonzero().flatten()
