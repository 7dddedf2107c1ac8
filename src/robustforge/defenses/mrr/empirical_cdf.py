"""Empirical distribution functions of several scores, one for each class, looked up without a loop."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class EmpiricalCDF(nn.Module):
    """Distribution functions of J scores for each of K classes.

    Args:
        scores: J.
        num_classes: K.
        capacity: values kept of each; more of them are thinned out evenly.

    Notes:
        F is (k + 1) / (n + 1) at the k-th smallest of n values, linear between them, and has exponential tails beyond:
        it is continuous, strictly increasing and strictly inside (0, 1), so that outliers still have an order.
    """

    values: Tensor
    counts: Tensor
    scale: Tensor

    def __init__(self, scores: int, num_classes: int, capacity: int = 5000) -> None:
        super().__init__()
        self.register_buffer("values", torch.full((scores, num_classes, capacity), float("inf")))
        self.register_buffer("counts", torch.ones(num_classes, dtype=torch.int64))
        self.register_buffer("scale", torch.ones(scores, num_classes))
        self.values[..., 0] = 0.0

    @torch.no_grad()
    def fit(self, scores: Tensor, label: Tensor, least: int | None = None) -> None:
        """Keeps the scores of held-out images.

        Args:
            scores: (M, J), M > 0.
            label: (M,) classes.
            least: classes with fewer images are given those of all classes; None: all classes are.
        """
        self.values.fill_(float("inf"))
        for number in range(self.values.shape[1]):
            mine = scores[label == number]
            pooled = least is None or len(mine) < max(1, least)
            ordered = (scores if pooled else mine).sort(0).values
            if len(ordered) > self.values.shape[2]:
                place = torch.linspace(0, len(ordered) - 1, self.values.shape[2], device=ordered.device)
                ordered = ordered[place.round().long()]
            self.counts[number] = len(ordered)
            self.values[:, number, : len(ordered)] = ordered.T
            self.scale[:, number] = ordered.std(0, correction=0).clamp_min(1e-6)

    def thresholds(self, rate: float) -> Tensor:
        """(J, K) smallest kept values that at most a share ``rate`` of their own distribution exceeds."""
        allowed = (rate * self.counts.double() + 1e-9).long()
        place = (self.counts - 1 - allowed).clamp(min=0)
        return self.values.gather(2, place[None, :, None].expand(len(self.values), -1, 1)).squeeze(2)

    def level(self, rate: float) -> Tensor:
        """(K,) F at :meth:`thresholds`."""
        allowed = (rate * self.counts.double() + 1e-9).long()
        return (self.counts - allowed).clamp(min=1).float() / (self.counts + 1)

    def forward(self, scores: Tensor, label: Tensor) -> Tensor:
        """(B, J) F of scores (B, J) of images whose classes are ``label`` (B,)."""
        above = self._above(scores.detach(), label)  # how many values are <= the score
        count = self.counts[label][:, None]
        below, upper = (above - 1).clamp(min=0), torch.minimum(above, count - 1)
        left, right, scale = self._at(below, label), self._at(upper, label), self._scale(label)
        inside = (scores - left) / (right - left).clamp_min(1e-12)
        fraction = torch.where(above == 0, torch.exp(((scores - left) / scale).clamp(max=0)) - 1, inside)
        fraction = torch.where(above == count, 1 - torch.exp((-(scores - left) / scale).clamp(max=0)), fraction)
        return (below + 1 + fraction) / (count + 1)

    def _scale(self, label: Tensor) -> Tensor:
        return self.scale[:, label].T

    def _at(self, place: Tensor, label: Tensor) -> Tensor:
        """(B, J) kept values number ``place`` (B, J)."""
        rows = torch.arange(len(self.values), device=label.device)
        return self.values[rows[None], label[:, None], place]

    def _above(self, scores: Tensor, label: Tensor) -> Tensor:
        """(B, J) number of kept values at or below each score, by bisection of all of them at once."""
        low = torch.zeros_like(scores, dtype=torch.int64)
        high = self.counts[label][:, None].expand_as(low).clone()
        for _ in range(int(self.values.shape[2]).bit_length()):
            middle = (low + high) // 2
            going = low < high
            right = going & (self._at(middle.clamp(max=self.values.shape[2] - 1), label) <= scores)
            low = torch.where(right, middle + 1, low)
            high = torch.where(going & ~right, middle, high)
        return low
