"""The indicators of every attacked cell, and those of a worst case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from robustforge.indicators.evidence import Evidence, Indicator, at_budget, comparable, compare, compare_strongest
from robustforge.indicators.rules import CHALLENGERS, MEANING, RULES
from robustforge.records.summary import combine
from robustforge.records.table import CellKey


def judge(cells: Sequence[Evidence]) -> dict[CellKey, list[Indicator]]:
    """The indicators of every attacked cell of the table, as far as the recorded evidence goes."""
    return {
        cell.key: [found for rule in RULES if (found := rule(cell, comparable(cell, cells))) is not None]
        for cell in cells
        if cell.kind != "clean" and not cell.key.check
    }


def judge_worst(
    cells: Sequence[Evidence],
    judged: Mapping[CellKey, list[Indicator]],
    system: str,
    norm: str,
    eps: float,
    rate: float | None,
) -> list[Indicator] | None:
    """The indicators of a worst case: those of the best attack behind it.

    Of the iterated white-box attacks that are not significantly weaker than all of them together, the one with the
    fewest violations speaks for the worst case: a weaker attack's failure does not matter where a sound one found as
    much. Attacks without gradients are compared with all gradient attacks together.

    Returns:
        The indicators, or None where no iterated white-box attack was recorded: nothing supports the number then.
    """
    here = at_budget(cells, system, norm, eps, rate)
    white_box = [cell for cell in here if cell.kind == "iterative"]
    if not white_box:
        return None
    together = combine([cell.outcomes for cell in white_box])
    strong = [cell for cell in white_box if not compare("", cell.outcomes, together).violated] or white_box
    best = min(strong, key=lambda cell: (len(violations(judged[cell.key])), cell.accuracy))
    kept = [indicator for indicator in judged[best.key] if indicator.name not in CHALLENGERS]
    for name, (_, kinds) in CHALLENGERS.items():
        found = compare_strongest(name, together, [cell for cell in here if cell.kind in kinds])
        kept += [found] if found else []
    return sorted(kept, key=lambda indicator: list(MEANING).index(indicator.name))


def violations(indicators: Sequence[Indicator] | None) -> list[str]:
    """Names of the violated ones."""
    return [indicator.name for indicator in indicators or () if indicator.violated]


def plain_indicators(indicators: Sequence[Indicator] | None) -> list[dict[str, Any]]:
    """For ``result.json``."""
    return [vars(indicator) for indicator in indicators or ()]
