"""Single images of a run: what was attacked, what the system said, and how it ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray

from robustforge.records.table import Records
from robustforge.reporting.figures.gallery import CHANGES, change_range, changes, visible
from robustforge.reporting.figures.style import Arrays
from robustforge.reporting.headline import Cell, worst_cell

OUTCOMES = {"held": "held", "fooled": "fooled", "rejected": "rejected", "wrong": "wrong when clean"}


@dataclass(frozen=True)
class Case:
    """One image.

    Attributes:
        number: position in the split.
        group: ``worst``, ``typical``, or empty where the run did not choose.
        images: clean, attacked, change and, where the defense rebuilds its input, rebuilt: (H, W) or (H, W, 3) in
            [0, 1].
        label: true class.
        before: answer to the clean image; None where the run did not keep it.
        answer: answer to the attacked image.
        risk: of the attacked image, higher is more suspicious; None without one.
        accepted: whether the system accepts it; None where it accepts everything.
        outcome: a key of ``OUTCOMES``.
    """

    number: int
    group: str
    images: dict[str, NDArray[Any]]
    label: int
    before: int | None
    answer: int
    risk: float | None
    accepted: bool | None
    outcome: str


def cases_of(arrays: Arrays, limit: float | None, most: int, longest: int | None = None) -> list[Case]:
    """The images of a gallery.

    Args:
        arrays: of a file of kind ``gallery``, see :func:`robustforge.defenses.figures.gallery`.
        limit: risk above which the system rejects, or None.
        most: how many are given.
        longest: pixels of a side that are kept, by leaving out rows and columns; None for all.
    """
    change, span = changes(arrays["attacked"] - arrays["clean"]), change_range(arrays)
    return [_case(arrays, i, change[i] / span, limit, longest) for i in range(min(most, len(arrays["label"])))]


def threshold(result: Cell, records: Records | None) -> float | None:
    """Above which risk the defense rejects, at the rate of the headline; None where it accepts everything."""
    worst = worst_cell(result)
    rate = None if worst is None else worst["rate"]
    for key, part in ({} if records is None else records.cells).items():
        if (key.system, key.rate) == (result["defense"], rate) and np.isfinite(part["threshold"][0]):
            return float(part["threshold"][0])
    return None


def _case(arrays: Arrays, i: int, change: NDArray[Any], limit: float | None, longest: int | None) -> Case:
    label, answer = int(arrays["label"][i]), int(arrays["prediction"][i])
    before = int(arrays["clean_prediction"][i]) if "clean_prediction" in arrays else None
    risk = float(arrays["risk"][i]) if "risk" in arrays else None
    accepted = None if risk is None or limit is None else risk <= limit
    if before is not None and before != label:
        outcome = "wrong"
    elif accepted is False:
        outcome = "rejected"
    else:
        outcome = "held" if answer == label else "fooled"
    images = {name: visible(_smaller(arrays[name][i], longest)) for name in ("clean", "attacked")}
    images["change"] = colormaps[CHANGES](np.clip(0.5 + _smaller(change, longest) / 2, 0, 1))[..., :3]
    if "rebuilt" in arrays:
        images["rebuilt"] = visible(_smaller(arrays["rebuilt"][i], longest))
    group = ("worst" if i < int(arrays["worst"]) else "typical") if "worst" in arrays and int(arrays["worst"]) else ""
    number = int(arrays["index"][i]) if "index" in arrays else i
    return Case(number, group, images, label, before, answer, risk, accepted, outcome)


def _smaller(image: NDArray[Any], longest: int | None) -> NDArray[Any]:
    """(..., H, W) with the longest side at most ``longest``."""
    step = 1 if longest is None else -(-max(image.shape[-2:]) // longest)
    return image[..., ::step, ::step]
