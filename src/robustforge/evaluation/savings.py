"""Cells that cannot differ from another one of the same protocol: they are left out, and said."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor, nn

from robustforge.attacks.core.attack import Attack
from robustforge.evaluation.protocol import Cell
from robustforge.training import distributed

log = logging.getLogger(__name__)


def without_repeats(
    cells: Sequence[Cell], rejecting: Collection[str], main: Attack | None = None
) -> tuple[list[Cell], list[str]]:
    """The cells that are worth their passes.

    Left out are

    - an attack that only differs from others by what it does about a detector (``needs_risk``), on a system that never
      rejects, where another iterated attack runs on the same surface;
    - an attack that asks nothing but the system (``of_system``) on a second surface of the same system;
    - a transfer from a network that is the attacked system itself.

    Args:
        cells: of a protocol.
        rejecting: rows whose systems may reject an image.
        main: the run's own attack, which was asked for by name and always runs; None for none.

    Returns:
        (cells in their order, a sentence for each kind of cell that is left out).
    """
    kept: list[Cell] = []
    said: dict[str, None] = {}
    ends = {cell.system: cell.surface.modules for cell in cells if cell.attack is None}
    for cell in cells:
        if cell in kept:  # two rates of a system without a risk, or suites that overlap
            continue
        reason = "" if cell.attack is None else _reason(cell, cells, kept, ends, rejecting, main)
        if not reason:
            kept.append(cell)
        elif not cell.check and cell.attack is not None:
            said[f"{cell.system}: {cell.attack.name} on {cell.surface.name} was left out: {reason}."] = None
    for sentence in said if distributed.rank() == 0 else ():
        log.info(sentence)
    return kept, list(said)


def _reason(
    cell: Cell,
    cells: Sequence[Cell],
    kept: Sequence[Cell],
    ends: Mapping[str, nn.Module],
    rejecting: Collection[str],
    main: Attack | None,
) -> str:
    """Why a cell is left out, or nothing; ``ends`` are the rows' networks."""
    itself = {"undefended", cell.system} <= set(ends) and cell.surface.name == "transfer"
    if itself and same_network(ends["undefended"], ends[cell.system]):
        return "the undefended network is the attacked system itself, so that nothing is transferred"
    accepting = getattr(cell.attack, "needs_risk", False) and cell.system not in rejecting
    if accepting and cell.attack != main and any(_replaces(other, cell) for other in cells):
        return "the system never rejects, and there it is gradient ascent on the margin, as others are"
    twin = next((other for other in kept if _asks_the_same(other, cell)), None)
    if getattr(cell.attack, "of_system", False) and twin is not None:
        return f"it asks only the system, and so repeats {twin.surface.name}"
    return ""


def same_network(one: nn.Module, other: nn.Module) -> bool:
    """Whether two networks hold the same weights in the same order, under whatever names."""
    first, second = _tensors(one), _tensors(other)
    return bool(first) and len(first) == len(second) and all(map(_equal, first, second))


def _tensors(network: nn.Module) -> list[Tensor]:
    return [*network.parameters(), *network.buffers()]


def _equal(one: Tensor, other: Tensor) -> bool:
    return one is other or (one.shape == other.shape and torch.equal(one, other))


def _replaces(other: Cell, cell: Cell) -> bool:
    """Whether ``other`` is an iterated attack without a say on rejection where ``cell`` is one with it."""
    iterated = not getattr(other.attack, "needs_risk", False) and getattr(other.attack, "steps", 1) > 1
    place = (other.system, other.surface.name, other.threat, other.rate, other.blind)
    return iterated and place == (cell.system, cell.surface.name, cell.threat, cell.rate, cell.blind)


def _asks_the_same(one: Cell, other: Cell) -> bool:
    answers = (one.surface.system, one.surface.attacker_output) == (
        other.surface.system,
        other.surface.attacker_output,
    )
    asked = (one.system, one.attack, one.threat, one.rate, one.check, one.blind)
    return answers and asked == (other.system, other.attack, other.threat, other.rate, other.check, other.blind)
