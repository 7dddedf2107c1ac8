"""The worst of several attacks for each image, each run only on what the ones before it left standing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from robustforge.attacks.core.attack import Attack
from robustforge.attacks.core.inputs import check_images
from robustforge.attacks.core.surface import Surface
from robustforge.types import AttackResult, Threat, Trace, UserError


@dataclass(frozen=True)
class WorstCase(Attack):
    """Attacks in a row, each on the survivors of those before it.

    Attributes:
        name: row name in records.
        attacks: the attacks in their order; the keys are for overriding.

    Raises:
        UserError: no attack.

    Notes:
        An image that every attack leaves standing is returned as the first attack left it. Passes are summed. Its trace
        is of the first attack that took a gradient of it: values of other objectives cannot be compared with it.
    """

    name: str
    attacks: Mapping[str, Attack]

    def __post_init__(self) -> None:
        if not self.attacks:
            raise UserError(f"Attack {self.name} has no attacks: name at least one under attack.attacks.")

    @property
    def evades(self) -> bool:
        """Whether any of them lowers a detector's risk."""
        return any(attack.evades for attack in self.attacks.values())

    def fits(self, shape: Sequence[int], num_classes: int, threat: Threat) -> None:
        """All of them must."""
        for attack in self.attacks.values():
            attack.fits(shape, num_classes, threat)

    def __call__(
        self,
        surface: Surface,
        x: Tensor,
        y: Tensor,
        threat: Threat,
        *,
        index: Tensor | None = None,
        seed: int = 0,
        threshold: float | None = None,
    ) -> AttackResult:
        """See :class:`robustforge.attacks.core.attack.Attack`."""
        check_images(x)
        index = torch.arange(len(x), device=x.device) if index is None else index
        first, *others = self.attacks.values()
        merged = first(surface, x, y, threat, index=index, seed=seed, threshold=threshold)
        for attack in others:
            rows = (~merged.success).nonzero().flatten()
            if len(rows):
                part = attack(surface, x[rows], y[rows], threat, index=index[rows], seed=seed, threshold=threshold)
                merged = _merge(merged, part, rows)
        return merged


def _merge(whole: AttackResult, part: AttackResult, rows: Tensor) -> AttackResult:
    """``part`` of some ``rows`` that were still standing, into ``whole``."""
    won = rows[part.success]
    return AttackResult(
        whole.x_adv.index_copy(0, won, part.x_adv[part.success]),
        whole.success.index_fill(0, won, True),
        whole.forwards.index_add(0, rows, part.forwards),
        whole.backwards.index_add(0, rows, part.backwards),
        _merge_traces(whole.trace, part.trace, rows, len(whole.success)),
    )


def _merge_traces(whole: Trace | None, part: Trace | None, rows: Tensor, size: int) -> Trace | None:
    if part is None:
        return whole
    unknown = torch.full((size,), float("nan"), device=rows.device)
    whole = whole or Trace(unknown, unknown, unknown)
    unseen = whole.zero_gradient[rows].isnan()
    seen, news = vars(whole), vars(part)
    return Trace(**{name: seen[name].index_copy(0, rows[unseen], news[name][unseen]) for name in seen})
