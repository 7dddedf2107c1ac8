"""The nearest adversarial image found so far: what minimum-norm attacks keep, and how a budget cuts it."""

from __future__ import annotations

from collections.abc import Callable, Collection

import torch
from torch import Tensor

from robustforge.attacks.core.geometry import NORMS, per_sample, project
from robustforge.attacks.core.session import AttackSession
from robustforge.types import UserError


def check_norm(name: str, norm: str | None, norms: Collection[str]) -> None:
    """Raises UserError for a norm that is none of ``norms``, nor None for the threat's."""
    if norm is not None and norm not in norms:
        raise UserError(f"Attack {name} has norm='{norm}': choose one of {', '.join(norms)}, or null for the threat's.")


def bisect(fooled: Callable[[Tensor], Tensor], rows: Tensor, halvings: int) -> Tensor:
    """(n,) for each of ``rows`` the smallest share found, in (0, 1], that still fools; 1 is not asked about."""
    low, high = torch.zeros(len(rows), device=rows.device), torch.ones(len(rows), device=rows.device)
    for _ in range(halvings if len(rows) else 0):
        middle = (low + high) / 2
        hit = fooled(middle)
        low, high = torch.where(hit, low, middle), torch.where(hit, middle, high)
    return high


class Nearest:
    """Of each image of a session the nearest one that fooled the system; one inside the ball beats any outside.

    Attributes:
        name: of the norm that is measured.
        norm: itself, (B, ...) -> (B,).
        x_adv: (B, C, H, W) nearest so far, clean where there is none.
        distance: (B,) its distance, infinite where there is none, 0 for images that the system gets wrong as they are.
    """

    def __init__(self, session: AttackSession, norm: str | None = None) -> None:
        self.name = norm or session.threat.norm
        self._session, self.norm = session, NORMS[self.name]
        self.x_adv = session.x.clone()
        self.distance = torch.full((len(session.x),), float("inf"), device=session.x.device)
        self._fits = torch.zeros_like(self.distance, dtype=torch.bool)
        self.distance[session.fools(session.x, count=False)] = 0.0

    def standing(self) -> Tensor:
        """(n,) rows that the system gets right."""
        return (self.distance > 0).nonzero().flatten()

    def offer(self, x_adv: Tensor, rows: Tensor, suspects: Tensor, *, gain: float = 0.0) -> Tensor:
        """Keeps the images that fool the system and are nearer; the system is asked about those only.

        Args:
            x_adv: (n, C, H, W) in [0, 1].
            rows: (n,) whose they are, each row once.
            suspects: (n,) bool, adversarial as far as the attacker can tell.
            gain: share by which an image must be nearer to be worth asking about.

        Returns:
            (n,) bool: adversarial, by the system's word where it was asked and by the attacker's where it was not.
        """
        places = suspects.nonzero().flatten()
        delta = x_adv[places] - self._session.x[rows[places]]
        limit = (1 - gain) * self.distance[rows[places]]
        fits, kept_fits = self._within(delta), self._fits[rows[places]]
        nearer = torch.where(fits == kept_fits, self.norm(delta) < limit, fits)
        asked = places[nearer]
        if not len(asked):
            return suspects
        verdict = self._session.fools(x_adv[asked], rows[asked])
        self.keep(x_adv[asked[verdict]], rows[asked[verdict]])
        return suspects.index_put((asked,), verdict)

    def keep(self, x_adv: Tensor, rows: Tensor) -> None:
        """Takes images (n, C, H, W), known to fool, as the nearest of ``rows`` (n,), each row once."""
        delta = x_adv - self._session.x[rows]
        self.x_adv[rows], self.distance[rows], self._fits[rows] = x_adv, self.norm(delta), self._within(delta)

    def _within(self, delta: Tensor) -> Tensor:
        return NORMS[self._session.threat.norm](delta) <= self._session.threat.eps

    def pull(self, rows: Tensor, halvings: int) -> None:
        """Moves what was found (n,) along the straight line toward the clean image, while it fools, by bisection."""
        rows = rows[self.distance[rows].isfinite() & (self.distance[rows] > 0)]
        clean, far, everyone = self._session.x[rows], self.x_adv[rows], torch.ones_like(rows, dtype=torch.bool)
        bisect(
            lambda share: self.offer(torch.lerp(clean, far, per_sample(share, clean)), rows, everyone), rows, halvings
        )

    def prune(self, rows: Tensor, most: int) -> None:
        """Sets up to ``most`` changed values (pixels) of what was found (n,) back, smallest first, while it fools."""
        rows = rows[self.distance[rows].isfinite() & (self.distance[rows] > 0)]
        clean = self._session.x[rows]
        size = (self.x_adv[rows] - clean).abs()
        size = size.sum(1, keepdim=True) if self.name == "l0_pixels" else size
        ranked = size.flatten(1).masked_fill(size.flatten(1) == 0, float("inf")).sort(1)
        for place, value in zip(*(each[:, :most].unbind(1) for each in (ranked.indices, ranked.values)), strict=True):
            going = value.isfinite().nonzero().flatten()
            if not len(going):
                break
            back = torch.zeros_like(size.flatten(1), dtype=torch.bool).scatter_(1, place[:, None], True).view_as(size)
            trial = torch.where(back, clean, self.x_adv[rows])
            self.offer(trial[going], rows[going], torch.ones_like(going, dtype=torch.bool))

    def result(self) -> Tensor:
        """(B, C, H, W) inside the ball: what was found, projected where it lies outside."""
        outside = self.distance.isfinite() & (self.distance > 0) & ~self._fits
        cut = project(self.x_adv, self._session.x, self._session.threat)
        return torch.where(outside.view(-1, 1, 1, 1), cut, self.x_adv)
