"""The adversarial images behind a worst case: of every test image the one that turned it, in the order of the split.

Records hold no images. An attack draws by sample, so that those of the images that it turned are made again by
attacking these images alone.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from robustforge.attacks.core.geometry import inside
from robustforge.attacks.core.surface import fooled
from robustforge.evaluation.protocol import Cell
from robustforge.evaluation.runner import Evaluation
from robustforge.records.table import WITHIN_BUDGET, Records, read_records, same_eps
from robustforge.types import Batch, Threat

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class WorstImages:
    """What a worst case is made of.

    Attributes:
        images: (N, C, H, W) float32 in [0, 1] on the CPU, within the budget. An image that no attack turned is the
            clean one, and so is one that is misclassified as it is: AutoAttack returns them so, too.
        wrong: (N,) bool, whether the system answers ``images`` with another label than the true one.
        attacks: names of the attacks that turned images, most of them first.
    """

    images: Tensor
    wrong: Tensor
    attacks: list[str]

    @property
    def accuracy(self) -> float:
        """Percent of ``images`` that are classified correctly."""
        return 100 * float((~self.wrong).double().mean())


def worst_images(evaluation: Evaluation, records: Path, threat: Threat) -> WorstImages:
    """Makes the images of a finished evaluation's worst case again.

    Args:
        evaluation: that was run, on all test images, of a system that accepts everything.
        records: that it wrote.
        threat: one of its budgets.
    """
    test, cells = evaluation.data.test, list(_successes(evaluation, read_records(records), threat))
    everything = np.arange(len(test.labels))
    images = test.pixels(torch.as_tensor(everything))
    system = next(cell.surface for cell in evaluation.measured if cell.system == evaluation.name)
    size = evaluation.attacking.batch_size(evaluation.name, system)
    wrong = torch.cat([fooled(system, batch.x, batch.y)[0].cpu() for batch in _batches(evaluation, everything, size)])
    turned: dict[str, int] = {}
    for together in (False, True):  # rounding differs between batches: what it lost is made in the evaluation's own
        for cell, name, found in cells:
            rows = found[~wrong[found].numpy()]
            for batch in _batches(evaluation, _whole(rows, size, len(images)) if together else rows, size):
                result, output = evaluation.attacking.attacked(cell, cell.surface, batch, None)
                good = (output.logits.argmax(1) != batch.y) & inside(result.x_adv, batch.x, threat)
                good &= ~wrong.to(good.device)[batch.index]
                index = batch.index[good].cpu()
                images[index], wrong[index] = result.x_adv[good].cpu(), True
                turned[name] = turned.get(name, 0) + len(index)
    missed = {int(row) for _, _, found in cells for row in found[~wrong[found].numpy()]}
    if missed:
        log.warning("%d images that an attack turned are not turned again, and stay as they are", len(missed))
    return WorstImages(images, wrong, sorted((name for name, n in turned.items() if n), key=lambda name: -turned[name]))


def _whole(rows: np.ndarray, size: int, count: int) -> np.ndarray:
    """All images of the evaluation's batches that hold one of ``rows``."""
    parts = [np.arange(start * size, min((start + 1) * size, count)) for start in np.unique(rows // size)]
    return np.concatenate([rows[:0], *parts])


def _successes(evaluation: Evaluation, records: Records, threat: Threat) -> Iterator[tuple[Cell, str, np.ndarray]]:
    """Cells of the worst case, their attacks and the test images that they turned, those that turned most first."""
    found = []
    for cell in evaluation.measured:
        attack = cell.attack
        if cell.system != evaluation.name or attack is None or cell.check not in ("", *WITHIN_BUDGET):
            continue
        mine = cell.system, attack.name, cell.surface.name, threat.norm, cell.check
        for key, part in records.cells.items():
            named = key.system, key.attack, key.surface, key.norm, key.check
            if cell.threat == threat and named == mine and same_eps(key.eps, threat.eps):
                found.append((cell, attack.name, part["index"][part["success"]]))
    yield from sorted(found, key=lambda triple: -len(triple[2]))


def _batches(evaluation: Evaluation, rows: np.ndarray, size: int) -> Iterator[Batch]:
    test, device = evaluation.data.test, evaluation.device
    for start in range(0, len(rows), size):
        index = torch.as_tensor(rows[start : start + size])
        yield Batch(test.pixels(index, device), test.labels[index].to(device), index.to(device))
