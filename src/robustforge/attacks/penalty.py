"""Gradient descent on the penalties of a selective classifier (Ghosh, Losalka & Black, AAAI 2019, Eqs. 10 and 11)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robustforge.attacks.core.ascent import check_settings
from robustforge.attacks.core.attack import BaseAttack
from robustforge.attacks.core.geometry import project
from robustforge.attacks.core.session import AttackSession
from robustforge.randomness import SampleRandom
from robustforge.types import UserError

STARTS = ("clean", "noise")
_DECAYS, _TINY = (0.9, 0.999), 1e-8


def minus_penalty(scores: Tensor, target: Tensor) -> Tensor:
    """-penalty_t of scores -log(1 + penalty_c).

    Args:
        scores: (B, K), the view of a ``white_box`` surface.
        target: (B,) classes wanted.

    Returns:
        (B,), at most 0 on such a surface.
    """
    wanted = scores.gather(1, target[:, None]).squeeze(1)
    return -torch.expm1((-wanted).clamp(max=60.0))  # beyond it, float32's square overflows in Adam


@dataclass(frozen=True)
class PenaltyDescent(BaseAttack):
    """Adam on penalty_t(x + eta) + weight |eta|^2: close to the target's mean, well rebuilt, little changed.

    Meant for a ``white_box`` surface. Without a ``target`` every wrong class is tried in turn, on images that no
    earlier one fooled.

    Attributes:
        steps: of Adam, for each target.
        lr: its step size, pixel units.
        distance_weight: of the squared perturbation (paper: 1; 0 for fooling images, Eq. 11).
        start: ``clean`` (eta = 0, Eq. 10) or ``noise``, uniform images projected onto the ball (Eq. 11, whose inputs
            owe nothing to the clean image: give it a threat of linf with eps 1).
        early_stop: stop an image at its first iterate that fools the system.

    Raises:
        UserError: settings under which it would do nothing.

    Notes:
        The paper names neither the optimizer nor steps nor step size, keeps no bound on |eta| and does not say that
        pixels are clipped; here every iterate is projected onto the threat's ball and onto [0, 1].
    """

    evades = True
    name: str = "penalty"
    steps: int = 200
    lr: float = 0.01
    distance_weight: float = 1.0
    start: str = "clean"
    early_stop: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settings(self.name, "margin", self.precision, self.steps, step_size=self.lr)
        if self.start not in STARTS:
            raise UserError(f"Attack {self.name} has start='{self.start}': choose one of {', '.join(STARTS)}.")

    def perturb(self, session: AttackSession, seed: int) -> Tensor:
        """See :class:`robustforge.attacks.core.attack.BaseAttack`."""
        best = session.x.clone()
        if session.threat.eps == 0 or not len(best):
            return best
        rows = (~session.fools(best, count=False)).nonzero().flatten() if self.early_stop else session.everyone()
        if self.start == "noise":
            noise = SampleRandom(seed, self.name).uniform(session.index, best.shape[1:])
            rows, best = session.everyone(), project(noise, session.x, session.threat)
        begin = best.clone()
        if session.targets is not None:
            best[rows] = self._descend(session, begin[rows], rows, session.targets[rows])
            return best
        classes = session.logits(session.x[:1], session.everyone()[:1]).shape[1]
        for offset in range(1, classes):
            if not len(rows):
                break
            best[rows] = self._descend(session, begin[rows], rows, (session.y[rows] + offset) % classes)
            session.tracing = False
            rows = rows[~session.fools(best[rows], rows)]
        return best

    def _descend(self, session: AttackSession, start: Tensor, rows: Tensor, target: Tensor) -> Tensor:
        """(n, C, H, W): last, or first fooling, iterates for one target of each image."""
        result, place, x = start.clone(), torch.arange(len(rows), device=start.device), start
        mean, square = torch.zeros_like(start), torch.zeros_like(start)
        for step in range(1, self.steps + 1):
            gradient, scores, _ = session.gradient(x, rows, minus_penalty, target)
            if self.early_stop:
                suspects = session.suspects(scores, rows).nonzero().flatten()
                done = suspects[session.fools(x[suspects], rows[suspects])] if len(suspects) else suspects
                if len(done):
                    result[place] = x
                    keep = torch.ones(len(rows), dtype=torch.bool, device=rows.device).index_fill(0, done, False)
                    place, rows, target = place[keep], rows[keep], target[keep]
                    x, mean, square, gradient = x[keep], mean[keep], square[keep], gradient[keep]
                if not len(rows):
                    return result
            gradient = gradient - 2 * self.distance_weight * (x - session.x[rows])
            mean = _DECAYS[0] * mean + (1 - _DECAYS[0]) * gradient
            square = _DECAYS[1] * square + (1 - _DECAYS[1]) * gradient.square()
            ascent = (mean / (1 - _DECAYS[0] ** step)) / ((square / (1 - _DECAYS[1] ** step)).sqrt() + _TINY)
            x = project(x + self.lr * ascent, session.x[rows], session.threat)
        result[place] = x
        return result
