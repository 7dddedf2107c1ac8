"""DeepFool: steps to the nearest face of the linearized decision boundary (2016, arXiv:1511.04599)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robustforge.attacks.core.attack import BaseAttack
from robustforge.attacks.core.geometry import per_sample
from robustforge.attacks.core.nearest import Nearest, check_norm
from robustforge.attacks.core.rivals import likely_classes
from robustforge.attacks.core.session import AttackSession
from robustforge.ranges import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, PositiveShare, Precision
from robustforge.types import Norm

_PUSH = 1e-4  # added to every step, or an image all but on the boundary would never cross it
_MAX_STEPS = {"l2": 1.0, "linf": 0.2}
_FILLS = 6  # Newton steps on a concave, piecewise linear function; the next linearization mends what is left


def way_in_box(x: Tensor, slopes: Tensor, gaps: Tensor, linf: bool) -> tuple[Tensor, Tensor]:
    """Shortest steps r with <slope, r> = gap and 0 <= x + r <= 1.

    Args:
        x: (n, P) in [0, 1].
        slopes: (n, J, P) gradients of J leads.
        gaps: (n, J) by how much each has to rise, at least 0.
        linf: in the L-infinity norm, else L2.

    Returns:
        (steps (n, J, P), lengths (n, J), infinite for a lead that no step raises).

    Notes:
        r = clip(lambda * u) with u the slope (L2) or its sign (L-infinity); <slope, r> is concave and piecewise linear
        in lambda, so that Newton's method from 0 approaches the solution from below. Where the box does not bind, the
        first iterate is the paper's Eq. 8 (L2) or Eq. 11.
    """
    direction = slopes.sign() if linf else slopes
    gains, reach = slopes * direction, torch.zeros_like(gaps)
    room = torch.where(slopes > 0, 1 - x[:, None], x[:, None])
    steps, free, reached = torch.zeros_like(slopes), room > 0, torch.zeros_like(gaps)
    for _ in range(_FILLS):
        rate = (gains * free).sum(2)
        reach = reach + torch.where(rate > 0, (gaps - reached) / rate, 0.0)
        size = reach[..., None] * direction.abs()
        free = size < room
        steps = torch.minimum(size, room) * slopes.sign()
        reached = (slopes * steps).sum(2)
    length = steps.abs().amax(2) if linf else torch.linalg.vector_norm(steps, dim=2)
    # what the box does not give is charged in proportion, so that a face out of reach loses to one within
    return steps, torch.where(reached > 0, length * (gaps / reached).clamp(min=1.0), float("inf"))


@dataclass(frozen=True)
class DeepFool(BaseAttack):
    """Moves each image to the nearest of its linearized decision boundaries, until the system is fooled.

    Attributes:
        steps: largest number of linearizations.
        overshoot: share by which the way so far is lengthened, to cross the boundary (paper: 0.02).
        candidates: only this many of the classes, those most likely on the clean image; None for all.
        follow: boundaries looked at after the first step, those that were nearest; None for all (paper).
        first_step: share of the first step that is taken (paper: 1).
        max_step: longest step, in pixel units of the norm; None for 1 (L2) or 0.2 (L-infinity); paper: no bound.
        halvings: of the way back to the boundary at the end, while the system is fooled (paper: 0).
        norm: ``l2``, ``linf``, or None for the threat's.

    Raises:
        UserError: settings under which it would do nothing.

    Notes:
        Steps are the shortest ones within [0, 1]. The paper's ignore the box, and on images with black or white
        backgrounds half of each step is cut off: many more passes, and longer ways. The longer steps that this allows
        overshoot where the network is not linear; a halved first step, a bound on all of them and the bisection at the
        end make up for that. The result is judged in float32 after every step and images that fool leave the batch, so
        that no gradient is taken of an image that is done. Passes are float32 by default: the steps are ratios of gaps
        between logits, which bf16 rounds. A targeted attack has one boundary, to its target. Of a surface with several
        views the first is followed. An image outside the budget is projected into it.
    """

    name: str = "deepfool"
    precision: Precision = "float32"
    steps: PositiveInt = 50
    overshoot: NonNegativeFloat = 0.02
    candidates: PositiveInt | None = None
    follow: PositiveInt | None = 3
    first_step: PositiveShare = 0.5
    max_step: PositiveFloat | None = None
    halvings: NonNegativeInt = 6
    norm: Norm | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_norm(self.name, self.norm, self.norms)

    def perturb(self, session: AttackSession, seed: int) -> Tensor:
        """See :class:`robustforge.attacks.core.attack.BaseAttack`."""
        nearest = Nearest(session, self.norm)
        standing = rows = nearest.standing()
        if not len(rows):
            return nearest.result()
        classes, x_adv = likely_classes(session, self.candidates, rows), session.x[rows]
        total = torch.zeros_like(x_adv)
        share, longest = self.first_step, _MAX_STEPS[nearest.name] if self.max_step is None else self.max_step
        for _ in range(self.steps):
            step, classes = self._step(session, x_adv, rows, classes)
            step, share = share * step, 1.0
            total = total + step * per_sample((longest / nearest.norm(step)).clamp(max=1.0), step)
            x_adv = (session.x[rows] + (1 + self.overshoot) * total).clamp(0, 1)
            going = (~nearest.offer(x_adv, rows, torch.ones_like(rows, dtype=torch.bool))).nonzero().flatten()
            if not len(going):
                break
            if len(going) < len(rows):
                rows, classes, total, x_adv = rows[going], classes[going], total[going], x_adv[going]
        nearest.pull(standing, self.halvings)
        return nearest.result()

    def _step(self, session: AttackSession, x_adv: Tensor, rows: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        """(Step (n, C, H, W) to the nearest of the linearized boundaries, (n, J') classes of the nearest ones)."""

        def lead(leaf: Tensor) -> tuple[list[Tensor], Tensor]:
            logits = session.surface.logits(leaf, session.y[rows]).float()
            leads = logits.gather(1, classes) - logits.gather(1, session.y[rows, None])
            return list(leads.unbind(1)), logits

        gradients, leads, _ = session.differentiate(x_adv, rows, lead)
        linf = (self.norm or session.threat.norm) == "linf"
        slopes, gaps = torch.stack(gradients, 1).flatten(2), torch.stack(leads, 1)
        ahead = gaps.argmax(1)  # the likeliest wrong class: its lead is what the trace follows
        everyone = torch.arange(len(rows), device=rows.device)
        session.record(rows, slopes[everyone, ahead], gaps[everyone, ahead])
        gaps = gaps.abs()
        steps, lengths = way_in_box(x_adv.flatten(1), slopes, gaps, linf)
        nearest = lengths.topk(min(self.follow or classes.shape[1], classes.shape[1]), dim=1, largest=False).indices
        step = steps[everyone, nearest[:, 0]].view_as(x_adv)
        length = per_sample(lengths.gather(1, nearest[:, :1]).clamp(min=torch.finfo().tiny), step)
        return (1 + _PUSH / length) * step, classes.gather(1, nearest)
