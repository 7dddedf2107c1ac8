"""Runs a protocol: every cell sharded over processes, finished cells kept, a killed evaluation continues."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import torch.distributed as dist
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from robustforge.attacks.none import NoAttack
from robustforge.attacks.surfaces import fooled
from robustforge.data.datamodule import ImageData
from robustforge.data.resident import Split
from robustforge.defenses.base import Defense
from robustforge.defenses.stages import describe
from robustforge.evaluation.calibration import risk_threshold
from robustforge.evaluation.protocol import Cell, Protocol
from robustforge.evaluation.records import batch_columns, cell_table, write_table
from robustforge.training import distributed
from robustforge.types import Batch, Threat, UserError


@dataclass
class Evaluation:
    """A protocol on a trained defense.

    Attributes:
        name: of the defense's row.
        defense: trained, frozen, on ``device``.
        data: the data module, set up.
        protocol: what is run.
        folder: all records go to ``<folder>/records.parquet``.
        cells: finished cells go here, under a hash of all they depend on; runs may share the folder.
        stages: key of every stage's product. A row named like a stage depends on that stage alone.
        settings: evaluation-time settings that the defense's own row depends on besides.
        device: where it runs.
        quiet: no progress bar.
    """

    name: str
    defense: Defense
    data: ImageData
    protocol: Protocol
    folder: Path
    cells: Path
    stages: Mapping[str, str]
    settings: Mapping[str, Any]
    device: torch.device
    quiet: bool = False
    thresholds: dict[str, float | None] = field(default_factory=dict, init=False)  # by row, fitted once

    def run(self) -> tuple[Path, dict[str, float]]:
        """Runs every cell.

        Returns:
            (path of records.parquet, means of the defense's diagnostics over the evaluated images).
        """
        self.defense.eval().to(self.device)
        cells = self.protocol.cells(self.name, self.defense.surfaces(), self.defense.systems())
        rows = self.rows()
        tables: list[pa.Table] = []
        columns = (
            TextColumn("{task.description:<42}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(), TimeRemainingColumn(),
        )  # fmt: skip
        with Progress(*columns, disable=self.quiet or distributed.rank() != 0) as progress:
            everything = progress.add_task("evaluating: cells", total=len(cells), note="")
            inner = progress.add_task("", total=len(rows), note="")
            for cell in cells:
                progress.reset(inner, total=len(rows), description=f"  {_label(cell)}", note="")
                tables.append(self._cell(cell, rows, progress, inner))
                progress.advance(everything)
        path = self.folder / "records.parquet"
        if distributed.rank() == 0:
            write_table(pa.concat_tables(tables), path)
        distributed.barrier()
        return path, self._diagnostics(rows)

    def rows(self) -> np.ndarray:
        """Positions in the test split of the evaluated images, sorted; the same for every process."""
        count = len(self.data.test.labels)
        if self.protocol.n_test is None or self.protocol.n_test >= count:
            return np.arange(count)
        return np.sort(np.random.default_rng(0).permutation(count)[: self.protocol.n_test])

    def _cell(self, cell: Cell, rows: np.ndarray, progress: Progress, task: Any) -> pa.Table:
        path = self.cells / f"{self._key(cell)}.parquet"
        if distributed.agree(path.exists()):
            return pq.read_table(path)
        if cell.system not in self.thresholds:
            self.thresholds[cell.system] = self._threshold(cell)
        threshold = self.thresholds[cell.system]
        attack = cell.attack or NoAttack()
        threat = cell.threat or Threat(eps=0.0)
        parts, done, standing = [], 0, 0
        for batch in self._batches(self.data.test, rows):
            result = attack(
                cell.surface, batch.x, batch.y, threat,
                index=batch.index, seed=self.protocol.seed, threshold=threshold,
            )  # fmt: skip
            _, output = fooled(cell.surface, result.x_adv, batch.y, threshold)
            parts.append(batch_columns(batch, result, output, threshold))
            done, standing = done + len(batch.y), standing + int((~result.success).sum())
            note = f"{100 * standing / done:.1f} % stand"
            progress.update(task, completed=done * distributed.world_size(), note=note)
        gathered = _gather(parts)
        surface = cell.surface.name if cell.attack else "none"
        table = cell_table(gathered, cell.system, attack.name, surface, cell.threat, self.protocol.seed)
        if distributed.rank() == 0:
            write_table(table, path)
        distributed.barrier()
        return table

    def _key(self, cell: Cell) -> str:
        one = None if cell.system == self.name else self.stages.get(cell.system)  # the defense's own row has settings
        identity = {"stage": one} if one else {"stages": dict(self.stages), "settings": dict(self.settings)}
        description = {
            "system": cell.system, "surface": cell.surface.name, "attack": describe(cell.attack),
            "threat": describe(cell.threat), "n": self.protocol.n_test, "seed": self.protocol.seed,
            "fpr": self.protocol.false_positive_rate, "threshold": self.protocol.threshold,
            "data": self.data.fingerprint, "identity": identity,
        }  # fmt: skip
        return hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()[:16]

    def _threshold(self, cell: Cell) -> float | None:
        rate = self.protocol.false_positive_rate
        if rate is None:
            return self.protocol.threshold
        risks = []
        calibration = self.data.calibration
        for batch in self._batches(calibration, np.arange(len(calibration.labels)), shard=False):
            _, output = fooled(cell.surface, batch.x, batch.y)
            if output.risk is None:
                return None
            risks.append(output.risk)
        if not risks:
            raise UserError("protocol.false_positive_rate needs held-out images: raise dataset.held_out.")
        return risk_threshold(torch.cat(risks), rate)

    def _batches(self, split: Split, rows: np.ndarray, shard: bool = True) -> Iterator[Batch]:
        """Unaugmented batches of the given rows; each process takes every world_size-th, none twice."""
        if shard:
            rows = rows[distributed.rank() :: distributed.world_size()]
        for start in range(0, len(rows), self.data.eval_batch_size):
            index = torch.as_tensor(rows[start : start + self.data.eval_batch_size])
            x = split.images[index].to(self.device).float() / 255
            yield Batch(x, split.labels[index].to(self.device), index.to(self.device))

    def _diagnostics(self, rows: np.ndarray) -> dict[str, float]:
        parts: dict[str, list[torch.Tensor]] = {}
        for batch in self._batches(self.data.test, rows, shard=False):
            for name, values in self.defense.diagnostics(batch).items():
                parts.setdefault(name, []).append(values.float().cpu())
        return {name: float(torch.cat(values).mean()) for name, values in parts.items()}


def _label(cell: Cell) -> str:
    if cell.attack is None or cell.threat is None:
        return f"{cell.system}: clean"
    return f"{cell.system}: {cell.attack.name} on {cell.surface.name} {cell.threat.eps:.3f}"


def _gather(parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every process's columns, on every process."""
    if distributed.world_size() == 1:
        return parts
    everyone: list[Any] = [None] * distributed.world_size()
    dist.all_gather_object(everyone, parts)
    return [part for shard in everyone for part in shard]
