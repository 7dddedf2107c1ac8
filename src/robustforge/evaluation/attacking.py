"""What every cell of an evaluation needs: its threshold, its batches, and one batch attacked and judged."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from robustforge.attacks.core.batching import batch_within
from robustforge.attacks.core.surface import Surface, compiled, fooled
from robustforge.attacks.none import NoAttack
from robustforge.data.datamodule import ImageData
from robustforge.data.resident import Split
from robustforge.evaluation.calibration import risk_threshold
from robustforge.evaluation.columns import batch_columns
from robustforge.evaluation.drawing import BATCH
from robustforge.evaluation.lost import NOBODY, Sparing, spared
from robustforge.evaluation.parts import Finished, Parts
from robustforge.evaluation.progress import CellProgress
from robustforge.evaluation.protocol import Cell, Protocol
from robustforge.evaluation.share import Share, batches_of, dealt
from robustforge.randomness import global_draws
from robustforge.training import distributed
from robustforge.types import AttackResult, Batch, DefenseOutput, Threat, UserError

MOST = 4096  # images a batch, however much memory there is


@dataclass
class Attacking:
    """Attacks cells batch by batch, and keeps what is finished.

    Attributes:
        data: the data module, set up.
        protocol: what is run.
        device: where it runs.
        random_systems: rows whose systems answer the same image differently. Their draws go by the batch, which has
            ``drawing.BATCH`` images whatever the data module's says.
    """

    data: ImageData
    protocol: Protocol
    device: torch.device
    random_systems: Sequence[str] = ()
    _thresholds: dict[tuple[str, float | None], float | None] = field(default_factory=dict, init=False)  # fitted once

    def attack(
        self, cell: Cell, rows: NDArray[np.int64], lost: NDArray[np.int64], kept: Parts, share: Share, bar: CellProgress
    ) -> Finished:
        """Attacks what is not finished of a cell, or this process's part of it.

        Args:
            cell: which one.
            rows: (n,) its images, positions in the test split.
            lost: (k,) those on which no pass need be spent.
            kept: where finished batches are found and kept.
            share: the machine's part; the ranks of a machine share it.
            bar: told of every batch.

        Returns:
            What was finished before (on rank 0), and what this process has attacked; seconds in the same way.
        """
        main = distributed.rank() == 0
        found = distributed.agree(kept.finished() if main else None)  # one rank reads, and sets aside what is damaged
        before = found or Finished([], NOBODY, 0.0)
        unit = BATCH if cell.system in self.random_systems else 1
        ranks = distributed.world_size()
        mine = dealt(rows, unit, (share.number - 1) * ranks + distributed.rank(), share.count * ranks)
        mine = mine[~np.isin(mine, before.index)]
        parts, seconds = (list(before.parts), before.seconds) if main else ([], 0.0)
        for columns in parts:
            bar.advance(columns["success"] | columns["skipped"])
        threshold, surface = self.threshold(cell), compiled(cell.surface) if self.protocol.compile else cell.surface
        for batch in self.batches(self.data.test, mine, self.batch_size(cell.system, surface)):
            started = time.perf_counter()
            result, output = self.attacked(cell, surface, batch, threshold, lost)
            columns = batch_columns(batch, result, output, threshold, spared(batch.index, lost))
            spent = time.perf_counter() - started
            kept.keep(columns, spent)
            parts.append(columns)
            seconds += spent
            bar.advance(columns["success"] | columns["skipped"])
        return Finished(parts, mine, seconds)

    def attacked(
        self, cell: Cell, surface: Surface, batch: Batch, threshold: float | None, lost: NDArray[np.int64] = NOBODY
    ) -> tuple[AttackResult, DefenseOutput]:
        """What a cell's attack makes of one batch but the samples ``lost`` (k,), and what the system answers to it."""
        attack, threat = Sparing(cell.attack or NoAttack(), lost), cell.threat or Threat(eps=0.0)
        seen = replace(surface, system=surface.attacker_output or surface.system) if cell.blind else surface
        how: dict[str, Any] = {"index": batch.index, "seed": self.protocol.seed, "threshold": threshold}
        result = attack(seen, batch.x, batch.y, threat, **how)
        with global_draws(self.protocol.seed, batch.index):
            success, output = fooled(surface, result.x_adv, batch.y, threshold)
        result = replace(result, success=success & ~spared(batch.index, lost)) if cell.blind else result
        return result, output

    def batch_size(self, system: str, surface: Surface) -> int:
        """Images a batch: the data module's, or as many as the protocol's memory bound lets in."""
        bound = self.protocol.memory_gb
        if bound is None:
            return self._usual_size(system)
        (two,) = self.batches(self.data.test, np.arange(2), 2)
        return batch_within(surface, two.x, two.y, bound * 2**30, BATCH if system in self.random_systems else MOST)

    def _usual_size(self, system: str) -> int:
        return BATCH if system in self.random_systems else self.data.eval_batch_size

    def threshold(self, cell: Cell) -> float | None:
        """Risk above which a cell's system rejects, fitted on the calibration images once for all its cells."""
        place = cell.system, cell.rate
        if place not in self._thresholds:
            self._thresholds[place] = self.protocol.threshold if cell.rate is None else self._fitted(cell, cell.rate)
        return self._thresholds[place]

    def _fitted(self, cell: Cell, rate: float) -> float | None:
        risks, calibration = [], self.data.calibration
        everyone = np.arange(len(calibration.labels))
        for batch in self.batches(calibration, everyone, self._usual_size(cell.system)):
            with global_draws(self.protocol.seed, batch.index):
                _, output = fooled(cell.surface, batch.x, batch.y)
            if output.risk is None:
                return None
            risks.append(output.risk)
        if not risks:
            raise UserError("protocol.false_positive_rate needs held-out images: raise dataset.held_out.")
        return risk_threshold(torch.cat(risks), rate)

    def batches(self, split: Split, rows: NDArray[np.int64], size: int) -> Iterator[Batch]:
        """Unaugmented batches of the given rows (n,) of a split."""
        for part in batches_of(rows, size):
            index = torch.as_tensor(part)
            x = split.pixels(index, self.device)
            yield Batch(x, split.labels[index].to(self.device), index.to(self.device))
