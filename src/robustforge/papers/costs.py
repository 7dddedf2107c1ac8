"""What a run cost: the time of an inference and of the training, as far as it was recorded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from robustforge.records.table import CLEAN

COSTS = ("milliseconds", "training_minutes")


def cost(
    metric: str, result: Mapping[str, Any], cells: Sequence[Mapping[str, Any]]
) -> tuple[dict[str, Any] | None, str]:
    """One of ``COSTS`` in the place of an accuracy, or the reason why there is none.

    Args:
        metric: ``milliseconds`` for a clean image in a batch, or ``training_minutes`` of all stages, whichever run made
            them.
        result: content of ``result.json``.
        cells: of the wanted system.
    """
    clean = next((cell for cell in cells if cell["attack"] == CLEAN), None)
    if clean is None:
        return None, "not run: clean"
    if metric == "milliseconds":
        value = None if clean["seconds"] is None else 1000 * clean["seconds"] / clean["n"]
    else:
        spent = [stage.get("made_in") for stage in result["stages"]]
        value = None if None in spent else sum(spent) / 60
    if value is None:
        return None, "not recorded by an earlier version"
    return {**clean, "accuracy": value, "interval": None}, ""
