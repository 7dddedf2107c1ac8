"""Images that the worst case has lost already and no attack need look at (``protocol.columns=main|worst``)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from robustforge.attacks.core.attack import Attack
from robustforge.attacks.core.surface import Surface
from robustforge.evaluation.protocol import Cell
from robustforge.records.table import CLEAN, WITHIN_BUDGET
from robustforge.types import AttackResult, Member, Threat, Trace

NOBODY: NDArray[np.int64] = np.zeros(0, dtype=np.int64)
Place = tuple[str, float | None, Threat | None]


@dataclass
class Lost:
    """Sample numbers of the images of each system that are wrong as they are, or that an attack has broken.

    Attributes:
        columns: ``worst``; ``main`` where the run's own attack has a column of its own and spares nobody; ``full``
            where every attack has.
        main: the run's own attack, if any.
    """

    columns: str
    main: Attack | None = None
    _broken: dict[Place, NDArray[np.int64]] = field(default_factory=dict, init=False)

    def of(self, cell: Cell) -> NDArray[np.int64]:
        """(k,) images that a cell's attack may leave alone. Checks beyond the budget spare nobody."""
        whole = self.columns == "full" or (self.columns == "main" and cell.attack == self.main)
        if whole or cell.attack is None or cell.check not in ("", *WITHIN_BUDGET):
            return NOBODY
        return np.union1d(*(self._broken.get(place, NOBODY) for place in (_place(cell, clean=True), _place(cell))))

    def note(self, cell: Cell, table: pa.Table) -> None:
        """Takes note of a measured cell's records."""
        if cell.check not in ("", *WITHIN_BUDGET):
            return
        columns = {name: table[name].to_numpy() for name in ("index", "label", "prediction", "success", "accepted")}
        wrong = columns["success"]
        if cell.attack is None or table["attack"][0].as_py() == CLEAN:
            wrong = (columns["prediction"] != columns["label"]) | ~columns["accepted"]
        place = _place(cell, clean=cell.attack is None)
        self._broken[place] = np.union1d(self._broken.get(place, []), columns["index"][wrong]).astype(np.int64)


def _place(cell: Cell, clean: bool = False) -> Place:
    return cell.system, cell.rate, None if clean else cell.threat


def spared(index: Tensor, lost: NDArray[np.int64]) -> Tensor:
    """(B,) bool: which samples ``index`` (B,) are among the lost."""
    return torch.isin(index, torch.as_tensor(lost, device=index.device))


@dataclass(frozen=True)
class Sparing:
    """An attack that returns the images at which it need not look as they are, without a pass.

    Attributes:
        attack: on all others.
        lost: (k,) sample numbers that it leaves alone.
    """

    attack: Attack
    lost: NDArray[np.int64]

    def __call__(self, surface: Surface, x: Tensor, y: Tensor, threat: Threat, **how: Any) -> AttackResult:
        """See :class:`robustforge.attacks.core.attack.Attack`."""
        index = how.pop("index")
        rows = (~spared(index, self.lost)).nonzero().flatten()
        if len(rows) == len(x):
            return self.attack(surface, x, y, threat, index=index, **how)
        part = self.attack(surface, x[rows], y[rows], threat, index=index[rows], **how)

        def spread(values: Tensor, blank: Tensor) -> Tensor:
            return blank.index_copy(0, rows, values)

        none, unknown = torch.zeros_like(y), torch.full(y.shape, float("nan"), device=x.device)

        def member(one: Member) -> Member:
            attacked, broken = (spread(values, none.bool()) for values in (one.attacked, one.broken))
            forwards, backwards = (spread(values, none) for values in (one.forwards, one.backwards))
            return Member(one.name, attacked, broken, forwards, backwards, one.sampled)

        trace = part.trace and Trace(**{name: spread(values, unknown) for name, values in vars(part.trace).items()})
        return AttackResult(
            spread(part.x_adv, x.detach().clone()),
            spread(part.success, none.bool()),
            spread(part.forwards, none),
            spread(part.backwards, none),
            trace,
            tuple(member(one) for one in part.members),
        )
