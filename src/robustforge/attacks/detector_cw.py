"""Carlini & Wagner's L2 attack on systems that may reject: the least distortion that fools label and detectors."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from robustforge.attacks.core.attack import BaseAttack
from robustforge.attacks.core.geometry import inside, l2_norm, per_sample, project
from robustforge.attacks.core.session import AttackSession
from robustforge.attacks.core.survivors import standing
from robustforge.attacks.detector_aware import scaled_excess
from robustforge.ranges import NonNegativeFloat, PositiveFloat, PositiveInt

_SHRINK = 0.9  # black and white pixels lie where tanh still has a slope, not at infinity
_LIMIT = math.atanh(_SHRINK)


@dataclass(frozen=True)
class DetectorCW(BaseAttack):
    """Adam on |delta|^2 + a max(0, confidence - margin) + b sum_j max(0, excess_j), in Carlini & Wagner's tanh box.

    Attributes:
        steps: of Adam in each round (released MRR code: 10,000).
        rounds: of the search over both weights (code: 20).
        learning_rate: of Adam (code: 0.01).
        label_weight: first a (code: 0.001).
        detector_weight: first b.
        confidence: margin that counts as fooled, in logits (code: 0).
        paper_literal: b stays at ``detector_weight`` (code: 1.0), and only a is searched.

    Raises:
        UserError: settings under which it would do nothing.

    Notes:
        After Carlini & Wagner 2017 (arXiv:1711.08478, attack on MagNet). Each image has weights of its own: after a
        round that evades, both are lowered; after one that does not, whichever constraint its best iterate violates is
        raised. An image without any evading iterate keeps the one that came closest (the released MRR code answers
        black images, which its detectors then count as caught). Success outside the threat's ball is no success: give
        it a large one.
    """

    evades = True
    name: str = "detector_cw"
    steps: PositiveInt = 500
    rounds: PositiveInt = 6
    learning_rate: PositiveFloat = 0.01
    label_weight: PositiveFloat = 1.0
    detector_weight: PositiveFloat = 1.0
    confidence: NonNegativeFloat = 0.0
    paper_literal: bool = False

    def perturb(self, session: AttackSession, seed: int) -> Tensor:
        """See :class:`robustforge.attacks.core.attack.BaseAttack`."""
        result, rows = session.x.clone(), standing(session)
        if not len(rows):
            return result
        best = _Best.of(session.x[rows])
        label, detector = _Weight.of(self.label_weight, rows), _Weight.of(self.detector_weight, rows)
        for _ in range(self.rounds):
            mine = self._round(session, rows, label.now, detector.now, best)
            missed, loud = mine.lack > 0, (mine.excess > 0) & (not self.paper_literal)
            # a round that missed without violating either in the attacker's pass was misjudged by it: raise both
            label.search(~mine.evades & (missed | ~loud), mine.evades)
            if not self.paper_literal:
                detector.search(~mine.evades & (loud | ~missed), mine.evades)
            session.tracing = False  # values of rounds with other weights cannot be compared
        result[rows] = project(best.images, session.x[rows], session.threat)
        return result

    def _round(self, session: AttackSession, rows: Tensor, label: Tensor, detector: Tensor, best: _Best) -> _Best:
        """One run of Adam with weights (n,) of label and detector: its best iterates, which ``best`` is offered too."""
        clean = session.x[rows]
        w = torch.atanh((2 * clean - 1) * _SHRINK)
        first, second = torch.zeros_like(w), torch.zeros_like(w)
        mine = _Best.of(clean)
        for step in range(1, self.steps + 1):
            tanh = w.tanh()
            x_adv = ((tanh / _SHRINK + 1) / 2).clamp(0, 1)
            gradient, lack, excess = self._slope(session, x_adv, rows, label, detector)
            evades = (lack <= 0) & (excess <= 0)
            asked = evades.nonzero().flatten()  # the attacker's pass only nominates; the system decides
            if len(asked):
                held = inside(x_adv[asked], clean[asked], session.threat)
                evades[asked] = session.fools(x_adv[asked], rows[asked]) & held
            for kept in (mine, best):
                kept.offer(_Best(x_adv, l2_norm(x_adv - clean), lack, excess, evades))
            gradient = (2 * (x_adv - clean) + gradient) * (1 - tanh.square()) / (2 * _SHRINK)
            first.lerp_(gradient, 0.1)
            second.mul_(0.999).addcmul_(gradient, gradient, value=0.001)
            scale = (second / (1 - 0.999**step)).sqrt_().add_(1e-8)
            w = (w - self.learning_rate / (1 - 0.9**step) * first / scale).clamp(-_LIMIT, _LIMIT)
        return mine

    def _slope(
        self, session: AttackSession, x_adv: Tensor, rows: Tensor, label: Tensor, detector: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(gradient of both weighted penalties, missing margin (n,), summed excess over thresholds (n,))."""
        kept: list[Tensor] = []

        def function(leaf: Tensor) -> tuple[list[Tensor], Tensor]:
            answer = session.surface.answer(leaf, session.y[rows])
            lack = self.confidence - session.lead(answer.logits, rows)
            excess = scaled_excess(answer, session.threshold).clamp(min=0).sum(1)
            kept[:] = [lack.detach(), excess.detach()]
            return [-label * lack.clamp(min=0) - detector * excess], answer.logits

        (gradient,), (value,), _ = session.differentiate(x_adv, rows, function)
        session.record(rows, gradient, value)
        return -gradient, kept[0], kept[1]


@dataclass
class _Best:
    """The best iterate of each of n images: evading with the least distortion, else the least violation."""

    images: Tensor  # (n, C, H, W)
    distance: Tensor  # (n,) to the clean image, as all that follow
    lack: Tensor  # of the label's margin
    excess: Tensor  # of the scores over their thresholds
    evades: Tensor  # bool

    @classmethod
    def of(cls, clean: Tensor) -> _Best:
        infinite = torch.full((len(clean),), float("inf"), device=clean.device)
        return cls(clean, infinite, infinite, infinite, torch.zeros_like(infinite, dtype=torch.bool))

    def violation(self) -> Tensor:
        """(n,) by how much both constraints together are missed."""
        return self.lack.clamp(min=0) + self.excess.clamp(min=0)

    def offer(self, new: _Best) -> None:
        """Takes other iterates of the same images where they are better."""
        nearer = new.evades & (~self.evades | (new.distance < self.distance))
        closer = ~new.evades & ~self.evades & (new.violation() < self.violation())
        take = nearer | closer
        self.images = torch.where(per_sample(take, new.images), new.images, self.images)
        self.distance = torch.where(take, new.distance, self.distance)
        self.lack = torch.where(take, new.lack, self.lack)
        self.excess = torch.where(take, new.excess, self.excess)
        self.evades = self.evades | new.evades


@dataclass
class _Weight:
    """Of one penalty for each of n images, between the largest that was too small and the smallest that was enough."""

    now: Tensor  # (n,), as all of them
    low: Tensor
    high: Tensor

    @classmethod
    def of(cls, first: float, rows: Tensor) -> _Weight:
        zero = torch.zeros(len(rows), device=rows.device)
        return cls(zero + first, zero, zero + float("inf"))

    def search(self, short: Tensor, enough: Tensor) -> None:
        """Ten times where none was enough yet, else half-way; unchanged where neither mask (n,) is set."""
        self.low = torch.where(short, torch.maximum(self.low, self.now), self.low)
        self.high = torch.where(enough, torch.minimum(self.high, self.now), self.high)
        # what was enough beside another weight of the other constraint may not be any more: search upwards again
        self.high = torch.where(short & (self.high <= self.now), float("inf"), self.high)
        following = torch.where(self.high.isinf(), self.now * 10, (self.low + self.high) / 2)
        self.now = torch.where(short | enough, following, self.now).clamp(max=1e6)
