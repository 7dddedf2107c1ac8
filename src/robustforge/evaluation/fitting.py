"""Whether attacks can work on the data at all, asked before anything is trained or attacked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from typing import Any

from robustforge.attacks.core.attack import Attack
from robustforge.data.datamodule import ImageData
from robustforge.defenses.base import Defense
from robustforge.evaluation.protocol import Cell
from robustforge.types import Threat


def check_fits(cells: Sequence[Cell], defense: Defense, data: ImageData) -> None:
    """Asks every attack of an evaluation, and those that the defense trains with.

    Args:
        cells: of the evaluation.
        defense: whose constructor's arguments are searched for attacks.
        data: whose shape and number of classes they must fit.

    Raises:
        UserError: the first attack that cannot work on the data, in one sentence.
    """
    found = [(cell.attack, cell.threat) for cell in cells if cell.attack is not None and cell.threat is not None]
    for owner in (*defense.built_on(), defense):
        found += _attacks(owner.arguments, owner.arguments.get("threat"))
    for attack, threat in found:
        # any callable may be given as an attack; who has no such method is believed to fit
        fits = getattr(attack, "fits", None)
        if fits is not None:
            fits(data.shape, data.num_classes, threat)


def _attacks(value: Any, threat: Threat | None) -> Iterator[tuple[Attack, Threat]]:
    """The attacks in arguments and settings, each with the budget that stands beside it, if there is one."""
    if hasattr(value, "fits") and threat is not None:
        yield value, threat
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _attacks(part, threat)
    elif is_dataclass(value) and not isinstance(value, type):
        for part in vars(value).values():
            yield from _attacks(part, getattr(value, "threat", threat))
