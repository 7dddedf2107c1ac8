"""Carlini & Wagner's L2 attack (2017, arXiv:1608.04644): Adam in a tanh box, binary search over the weight c."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from robustforge.attacks.base import QueryAttack
from robustforge.attacks.engine import Query
from robustforge.attacks.geometry import per_sample
from robustforge.attacks.nearest import Nearest
from robustforge.losses.classification import margin
from robustforge.types import UserError

_BETAS = (0.9, 0.999)  # Adam's
_SHRINK = 0.9


@dataclass
class _Search:
    """Where each image stands: n of them, every one with its own round, step and c."""

    rows: Tensor
    clean: Tensor
    w: Tensor
    first: Tensor
    second: Tensor
    c: Tensor
    low: Tensor
    high: Tensor
    rounds: Tensor
    step: Tensor
    found: Tensor
    loss: Tensor
    before: Tensor

    @classmethod
    def start(cls, rows: Tensor, clean: Tensor, c: float) -> _Search:
        def full(value: float) -> Tensor:
            return torch.full((len(rows),), value, device=rows.device)

        infinite, count = float("inf"), torch.zeros_like(rows)
        return cls(
            rows, clean, _to_w(clean), torch.zeros_like(clean), torch.zeros_like(clean), full(c), full(0.0),
            full(infinite), count, count.clone(), torch.zeros_like(rows, dtype=torch.bool), full(infinite), full(infinite),
        )  # fmt: skip

    def select(self, index: Tensor) -> _Search:
        return _Search(*(getattr(self, field.name)[index] for field in fields(self)))

    def restart(self, ended: Tensor) -> None:
        """A new round with another c for the images (m,) at ``ended``."""
        found, c = self.found[ended], self.c[ended]
        high = torch.where(found, torch.minimum(self.high[ended], c), self.high[ended])
        low = torch.where(found, self.low[ended], torch.maximum(self.low[ended], c))
        self.c[ended] = torch.where(high.isinf(), c * 10, (low + high) / 2)
        self.low[ended], self.high[ended], self.found[ended] = low, high, False
        self.w[ended] = _to_w(self.clean[ended])
        self.first[ended], self.second[ended], self.step[ended] = 0.0, 0.0, 0
        self.loss[ended], self.before[ended] = float("inf"), float("inf")
        self.rounds[ended] += 1

    def adam(self, gradient: Tensor, learning_rate: float) -> None:
        self.first.lerp_(gradient, 1 - _BETAS[0])
        self.second.mul_(_BETAS[1]).addcmul_(gradient, gradient, value=1 - _BETAS[1])
        count = self.step.float()
        size = per_sample(learning_rate / (1 - _BETAS[0] ** count), self.w)
        scale = per_sample((1 - _BETAS[1] ** count).rsqrt(), self.w)
        self.w.sub_(size * self.first / self.second.sqrt().mul_(scale).add_(1e-8))
        limit = math.atanh(_SHRINK)
        self.w.clamp_(-limit, limit)


def _to_w(x: Tensor) -> Tensor:
    return torch.atanh((2 * x - 1) * _SHRINK)


@dataclass(frozen=True)
class CarliniWagner(QueryAttack):
    name: str = "carlini_wagner"
    search_steps: int = 9
    steps: int = 1000
    learning_rate: float = 5e-3
    initial_c: float = 1e-2
    confidence: float = 0.0
    patience: int = 100

    def perturb(self, query: Query, seed: int) -> Tensor:
        nearest = Nearest(query, "l2")
        rows = nearest.standing()
        search = _Search.start(rows, query.x[rows], self.initial_c)

        while len(search.rows):
            self._step(query, nearest, search)
            ended = self._ended(search)
            if len(ended):
                search.restart(ended)
                going = search.rounds < self.search_steps
                if not bool(going.all()):
                    search = search.select(going.nonzero().flatten())
        nearest.pull(rows, 8)
        return nearest.result()

    def _step(self, query: Query, nearest: Nearest, search: _Search) -> None:
        confidence = self.confidence
        tanh = search.w.tanh()
        x_adv = ((tanh / _SHRINK + 1) / 2).clamp(0, 1)

        def hinge(logits: Tensor, labels: Tensor) -> Tensor:
            # for targets the query minimises this instead
            value = margin(logits, labels)
            return value.clamp(max=confidence) if query.targets is None else value.clamp(min=-confidence)

        gradient, logits, value = query.gradient(x_adv, search.rows, hinge)
        suspects = query.suspects(logits, search.rows)
        search.found |= nearest.offer(x_adv, search.rows, suspects, gain=0.005)
        delta = x_adv - search.clean
        loss = delta.square().flatten(1).sum(1) + search.c * (confidence * sum(query.surface.weights) - value)
        search.loss = torch.minimum(search.loss, loss)
        search.step += 1
        slope = (1 - tanh.square()) / (2 * _SHRINK)
        search.adam((2 * delta - per_sample(search.c, delta) * gradient) * slope, self.learning_rate)

    def _ended(self, search: _Search) -> Tensor:
        check = search.step % self.patience == 0
        ended = check & (search.loss > 0.9999 * search.before)
        search.before = torch.where(check, search.loss, search.before)
        return (ended | (search.step >= self.steps)).nonzero().flatten()
