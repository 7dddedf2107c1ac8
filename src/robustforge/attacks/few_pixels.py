"""An attack on systems that may reject: few pixels change, those that matter most, so that detectors see little."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from robustforge.attacks.core.attack import BaseAttack
from robustforge.attacks.core.geometry import per_sample, project
from robustforge.attacks.core.restarts import in_rounds
from robustforge.attacks.core.session import AttackSession
from robustforge.attacks.core.survivors import Iterates, Survivors
from robustforge.attacks.detector_aware import scaled_excess
from robustforge.ranges import PositiveFloat, PositiveInt, PositiveShare, Some
from robustforge.types import Threat


@dataclass
class _Run(Iterates):
    """What a run carries."""

    clean: Tensor  # (m, C, H, W)
    direction: Tensor  # (m, C, H, W), within [-1, 1]


@dataclass(frozen=True)
class FewPixels(BaseAttack):
    """Projected gradient steps on the label, of which only the k pixels of an image are kept that moved most.

    Detectors that look at every pixel (the likelihood of PixelDefend, a reconstruction error) see the steps of other
    attacks, which move every pixel by the same amount, and their own gradient need not lead back: the likelihood of a
    black pixel falls with its first gray level and hardly any further. Here the detector is not followed; k is what
    keeps it silent, and each image is attacked with few pixels first, and with more where that is not enough.

    Attributes:
        shares: of the pixels that may change, in (0, 1]: one run for each, on the images that the runs before left.
        steps: of a run.
        relative_step: change of the k steepest pixels in a step, over the radius.

    Raises:
        UserError: settings under which it would do nothing.

    Notes:
        The projection is that of Croce & Hein 2019 (PGD_0 and its l0 + l-infinity form, arXiv:1909.05040); they take
        one k and know of no detector. Their step divides the gradient by its sum, ours by the slope of its k-th
        steepest pixel, and is cut there: steps on the sign for all pixels.
    """

    evades = needs_risk = of_system = True
    norms = ("linf",)
    name: str = "few_pixels"
    shares: Some[PositiveShare] = (1 / 64, 1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)
    steps: PositiveInt = 20
    relative_step: PositiveFloat = 0.1

    def perturb(self, session: AttackSession, seed: int) -> Tensor:
        """See :class:`robustforge.attacks.core.attack.BaseAttack`."""
        rounds = [(number,) for number in range(len(self.shares))]
        return in_rounds(session, rounds, lambda rows, _: session.x[rows], partial(self._run, session), fallback=-1)

    def _run(self, session: AttackSession, start: Tensor, rows: Tensor, numbers: Sequence[int]) -> tuple[Tensor, None]:
        """Evading iterates (n, C, H, W), the first of each run; else the last."""
        count = max(1, round(self.shares[numbers[0]] * start[0, 0].numel()))
        step_size = self.relative_step * session.threat.eps
        runs = Survivors(session, rows, start, stops="own")
        s = _Run(start, clean=start, direction=start)
        for _ in runs.steps(self.steps):
            s.direction, evades = _direction(session, s.x, runs.rows, count)
            s = runs.judge(s, evades)
            s.x = closest_with_few(s.x + step_size * s.direction, s.clean, session.threat, count)
        return runs.finish(s.x), None


def _direction(session: AttackSession, x: Tensor, rows: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """(step direction (m, C, H, W), 1 for the ``count`` steepest pixels; whether x seems wrong and accepted (m,))."""
    kept: list[Tensor] = []

    def function(leaf: Tensor) -> tuple[list[Tensor], Tensor]:
        answer = session.surface.answer(leaf, session.y[rows])
        lead = session.lead(answer.logits, rows)
        kept[:] = [(lead.detach() > 0) & (scaled_excess(answer, session.threshold).detach() <= 0).all(1)]
        return [lead], answer.logits

    (gradient,), (value,), _ = session.differentiate(x, rows, function)
    session.record(rows, gradient, value)
    steepest = gradient.abs().amax(1).flatten(1).topk(count, dim=1).values[:, -1]
    scaled = gradient / per_sample(steepest.clamp_min(torch.finfo(gradient.dtype).tiny), gradient)
    return scaled.clamp(-1, 1), kept[0]


def closest_with_few(x: Tensor, clean: Tensor, threat: Threat, count: int) -> Tensor:
    """The closest images to ``x`` that lie in the L-infinity ball and differ from ``clean`` in few pixels.

    Keeping a pixel, cut to the ball, saves its squared distance to the clean one less that of the cut (Croce & Hein
    2019, arXiv:1909.05040, Section 3): those that save most are kept.

    Args:
        x: (B, C, H, W), anywhere.
        clean: (B, C, H, W) in [0, 1].
        threat: the ball.
        count: of pixels that may differ, in any of their channels.

    Returns:
        (B, C, H, W) in [0, 1].
    """
    held = project(x, clean, threat)
    saved = ((x - clean).square() - (x - held).square()).sum(1).flatten(1)
    chosen = torch.zeros_like(saved, dtype=torch.bool).scatter_(1, saved.topk(count, dim=1).indices, True)
    return torch.where(chosen.view(len(x), 1, *x.shape[2:]), held, clean)
