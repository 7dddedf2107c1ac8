"""The worst of several attacks for each image, each run only on what the ones before it left standing.

Expensive attacks that rarely break what is left may be tried on a sample of it first (``Sampled``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from robustforge.attacks.core.attack import Attack
from robustforge.attacks.core.inputs import check_images
from robustforge.attacks.core.restarts import room_for
from robustforge.attacks.core.surface import Surface
from robustforge.hints import check_fields
from robustforge.randomness import SampleRandom
from robustforge.ranges import Share, ShareBelowOne
from robustforge.types import AttackResult, Member, Threat, Trace, UserError


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
        none = torch.zeros_like(index)
        whole = AttackResult(x.detach().float().clone(), none.bool(), none, none)
        for number, attack in enumerate(self.attacks.values()):
            rows = (~whole.success).nonzero().flatten()
            if len(rows) or not number:
                with room_for(len(x)):
                    whole = self._with(whole, attack, rows, (surface, x, y, threat, index, seed, threshold))
        return whole

    def _with(self, whole: AttackResult, attack: Attack, rows: Tensor, given: _Given) -> AttackResult:
        """``whole`` after ``attack`` on the ``rows`` that still stand."""
        return _merge(whole, attack.name, *_run(attack, rows, given))


_Given = tuple[Surface, Tensor, Tensor, Threat, Tensor, int, float | None]  # of a call


@dataclass(frozen=True)
class Sampled(WorstCase):
    """Attacks in a row, some of them on a sample of the survivors first: the check that gradients are not masked.

    A sampled attack runs on a random share of the images that still stand and on every image whose trace speaks against
    its gradients (first gradient exactly zero, or an objective that never rose). If it breaks more than ``spread`` of
    these, it runs on all others, too. ``AttackResult.members`` says what was attacked.

    Attributes:
        sampled: keys of ``attacks`` that are tried on a sample.
        sample: share of the survivors that is drawn, by sample number, in [0, 1].
        spread: share of the tried images, in [0, 1), that may be broken without the others being attacked.

    Raises:
        UserError: no attack, a key that is none, or shares out of range.

    Notes:
        Whether the others are attacked is decided batch by batch, so that this depends on how images are batched; which
        images are drawn does not. An attack that would break fewer than one in n survivors is likely to be missed by a
        sample of n: for headlines take ``auto``, which runs everything on everything.
    """

    sampled: Sequence[str] = ()
    sample: Share = 0.25
    spread: ShareBelowOne = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self)
        if unknown := [key for key in self.sampled if key not in self.attacks]:
            raise UserError(
                f"Attack {self.name} has sampled={', '.join(unknown)}: name keys of its attacks, "
                f"{', '.join(self.attacks)}."
            )

    def _with(self, whole: AttackResult, attack: Attack, rows: Tensor, given: _Given) -> AttackResult:
        if not any(self.attacks[key] is attack for key in self.sampled):
            return super()._with(whole, attack, rows, given)
        index, seed = given[4], given[5]
        drawn = SampleRandom(seed, f"{self.name}/sample").uniform(index[rows], (1,)).flatten() < self.sample
        tried = drawn | _masked(whole, rows)
        whole, others = super()._with(whole, attack, rows[tried], given), rows[~tried]
        *before, first = whole.members
        if not len(others) or int(first.broken.sum()) <= self.spread * int(tried.sum()):
            return replace(whole, members=(*before, replace(first, sampled=len(others) > 0)))
        again = super()._with(whole, attack, others, given)
        second = again.members[-1]
        sums = {key: getattr(first, key) + getattr(second, key) for key in ("forwards", "backwards")}
        both = {key: getattr(first, key) | getattr(second, key) for key in ("attacked", "broken")}
        return replace(again, members=(*before, Member(attack.name, **both, **sums)))


def _masked(whole: AttackResult, rows: Tensor) -> Tensor:
    """(n,) bool: the gradients of the first attack that took any of these rows were zero, or led nowhere."""
    if whole.trace is None:
        return torch.zeros_like(rows, dtype=torch.bool)
    spent = torch.stack([member.backwards[rows] for member in whole.members])
    traced = spent.gather(0, (spent > 0).int().argmax(0, keepdim=True)).squeeze(0)
    stuck = (whole.trace.loss_gain[rows] <= 0) & (traced > 1)  # a single gradient has nothing to gain
    return (whole.trace.zero_gradient[rows] >= 1) | stuck


def _run(attack: Attack, rows: Tensor, given: _Given) -> tuple[AttackResult, Tensor, Tensor]:
    """(what ``attack`` makes of the ``rows``, rows, (n,) bool: which it broke that were not wrong as they came)."""
    surface, x, y, threat, index, seed, threshold = given
    part = attack(surface, x[rows], y[rows], threat, index=index[rows], seed=seed, threshold=threshold)
    return part, rows, part.success & (part.x_adv != x[rows].float()).flatten(1).any(1)


def _merge(whole: AttackResult, name: str, part: AttackResult, rows: Tensor, broken: Tensor) -> AttackResult:
    """``part`` of some ``rows`` that were still standing, into ``whole``, of which ``name`` is the next member."""
    first = not whole.members
    taken = torch.ones_like(part.success) if first else part.success
    none = torch.zeros_like(whole.forwards)
    return AttackResult(
        whole.x_adv.index_copy(0, rows[taken], part.x_adv[taken].float()),
        whole.success.index_fill(0, rows[part.success], True),
        whole.forwards.index_add(0, rows, part.forwards),
        whole.backwards.index_add(0, rows, part.backwards),
        _merge_traces(whole.trace, part.trace, rows, len(whole.success)),
        (
            *whole.members,
            Member(
                name,
                none.bool().index_fill(0, rows, True),
                none.bool().index_fill(0, rows[broken], True),
                none.index_add(0, rows, part.forwards),
                none.index_add(0, rows, part.backwards),
            ),
        ),
    )


def _merge_traces(whole: Trace | None, part: Trace | None, rows: Tensor, size: int) -> Trace | None:
    if part is None:
        return whole
    unknown = torch.full((size,), float("nan"), device=rows.device)
    whole = whole or Trace(unknown, unknown, unknown)
    unseen = whole.zero_gradient[rows].isnan()
    seen, news = vars(whole), vars(part)
    return Trace(**{name: seen[name].index_copy(0, rows[unseen], news[name][unseen]) for name in seen})
