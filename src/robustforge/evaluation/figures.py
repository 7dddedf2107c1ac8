"""Arrays for a run's figures, kept while the defense is at hand; what is drawn from them needs no torch."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from robustforge.defenses.base import Defense
from robustforge.defenses.figures import Figure, Scene, gallery
from robustforge.optional import optional
from robustforge.records.contributions import Cases

# the strongest first: the picture shows what the adapted attacker does
_PREFERRED = ("soft_slot", "end_to_end")


def save_figures(
    defense: Defense, scene: Scene, folder: Path, cases: Cases | None = None, surface: str | None = None
) -> dict[str, float]:
    """Writes ``<folder>/<name>.npz`` for the gallery and for each of the defense's own figures.

    A figure that fails is a warning.

    Args:
        defense: trained.
        scene: images, attack and budget that are shown.
        folder: the run folder.
        cases: images that the gallery shows; None for the first ones.
        surface: that the gallery's attack runs on; None for the most adapted one of all.

    Returns:
        What was measured on the way, by name.
    """
    surfaces = defense.surfaces()
    adapted = next(surfaces[name] for name in (surface, *_PREFERRED) if name in surfaces)
    found: dict[str, float] = {}
    draw = partial(gallery, surface=adapted)
    if cases is not None and cases.index:
        draw = partial(draw, index=cases.index, worst=cases.worst)
    figures: dict[str, Figure] = {"gallery": draw, **defense.figures()}
    for name, figure in figures.items():
        with optional(f"figure {name}"):
            picture = figure(scene)
            picture.save(folder / f"{name}.npz")
            found |= picture.found
    return found
