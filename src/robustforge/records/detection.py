"""Detection of the images that were classified correctly before an attack and wrongly after it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from robustforge.records.abstention import Floats, auroc
from robustforge.records.statistics import Z_95
from robustforge.records.table import Records


@dataclass(frozen=True)
class Detection:
    """Risks of a system's clean and attacked images, pooled over one or several attacked cells.

    Attributes:
        negative: (n,) risks of clean images that the system labels right.
        positive: (m,) risks of attacked images that it labeled right before and wrong now.
        missed: how many of those it accepts.
        attacked: images that it labeled right before, counted once a cell.
        cells: how many cells were pooled.
    """

    negative: Floats
    positive: Floats
    missed: int
    attacked: int
    cells: int

    @property
    def auroc(self) -> float:
        """Area under the ROC curve in percent, NaN where no image became wrong."""
        return 100 * auroc(self.negative, self.positive)

    def false_positives(self, detected: float) -> float:
        """Percentage of clean images above the highest threshold that catches a share ``detected`` of the changed ones.

        Args:
            detected: in (0, 1].

        Returns:
            In [0, 100], NaN where no image became wrong. Risks at the threshold are caught, of either kind.
        """
        if not len(self.positive) or not len(self.negative):
            return math.nan
        place = math.ceil(detected * len(self.positive) - 1e-9)  # so many must be caught
        threshold = np.sort(self.positive)[::-1][place - 1]
        return 100 * float((self.negative >= threshold).mean())

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % interval of ``auroc``; None for pooled cells, which hold the same images again, or nothing at all."""
        if self.cells != 1 or not len(self.positive) or not len(self.negative):
            return None
        return auroc_interval(self.auroc / 100, len(self.negative), len(self.positive))


def detection(cells: Sequence[Records], clean: Records) -> Detection:
    """Pools attacked cells of one system.

    Args:
        cells: their records.
        clean: the same system's clean records, of all the attacked images at least.
    """
    right = clean["prediction"] == clean["label"]
    known = clean["index"][right]
    positive, missed, attacked = [], 0, 0
    for part in cells:
        mine = np.isin(part["index"], known)
        turned = mine & (part["prediction"] != part["label"])
        positive.append(part["risk"][turned])
        missed += int((turned & part["accepted"]).sum())
        attacked += int(mine.sum())
    return Detection(clean["risk"][right], np.concatenate(positive), missed, attacked, len(cells))


def auroc_interval(area: float, negatives: int, positives: int) -> tuple[float, float]:
    """95 % interval of an area under the ROC curve, percent (Hanley & McNeil 1982).

    Args:
        area: in [0, 1].
        negatives: number of them.
        positives: likewise.
    """
    both_above, both_below = area / (2 - area), 2 * area**2 / (1 + area)
    spread = area * (1 - area) + (positives - 1) * (both_above - area**2) + (negatives - 1) * (both_below - area**2)
    half = Z_95 * math.sqrt(max(0.0, spread) / (negatives * positives))
    return 100 * max(0.0, area - half), 100 * min(1.0, area + half)
