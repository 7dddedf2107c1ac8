"""The systems of a run's table besides the defense itself."""

from __future__ import annotations

from robustforge.attacks.core.surface import Surface
from robustforge.defenses.base import Defense

BASELINE = "baseline"


def rows(defense: Defense, baseline: Defense | None) -> dict[str, dict[str, Surface]]:
    """Surfaces of the other rows, by name: those that the defense names, and ``baseline``, a trained system."""
    named = defense.systems()
    return named if baseline is None else {**named, BASELINE: baseline.surfaces()}
