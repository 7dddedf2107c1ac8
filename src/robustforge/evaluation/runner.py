"""Runs a protocol: every cell sharded over processes, finished cells kept, a killed evaluation continues."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import torch.distributed as dist
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from robustforge.attacks.core.batching import batch_within
from robustforge.attacks.core.surface import Surface, compiled, fooled
from robustforge.attacks.none import NoAttack
from robustforge.data.datamodule import ImageData
from robustforge.data.resident import Split
from robustforge.defenses.base import Defense
from robustforge.defenses.stages import describe
from robustforge.evaluation.calibration import risk_threshold
from robustforge.evaluation.columns import batch_columns
from robustforge.evaluation.parts import Parts
from robustforge.evaluation.protocol import Cell, Protocol
from robustforge.records.schema import SCHEMA, cell_table, join_tables, write_table
from robustforge.training import distributed
from robustforge.types import Batch, Threat, UserError

MOST = 4096  # images a batch, however much memory there is


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
    thresholds: dict[tuple[str, float | None], float | None] = field(default_factory=dict, init=False)  # fitted once

    def run(self) -> tuple[Path, dict[str, float]]:
        """Runs every cell.

        Returns:
            (path of records.parquet, means of the defense's diagnostics over the evaluated images).
        """
        self.defense.eval().to(self.device)
        cells = self._cells()
        tables: list[pa.Table] = []
        columns = (
            TextColumn("{task.description:<42}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, disable=self.quiet or distributed.rank() != 0) as progress:
            everything = progress.add_task("evaluating: cells", total=len(cells), note="")
            inner = progress.add_task("", total=0, note="")
            for cell in cells:
                rows = self.rows(self.protocol.checks_n if cell.check else None, self._asked(cell))
                progress.reset(inner, total=len(rows), description=f"  {_label(cell)}", note="")
                tables.append(self._cell(cell, rows, progress, inner))
                progress.advance(everything)
        path = self.folder / "records.parquet"
        if distributed.rank() == 0:
            write_table(join_tables(tables), path)
        distributed.barrier()
        return path, self._diagnostics(self.rows())

    def rows(self, most: int | None = None, asked: int | None = None) -> np.ndarray:
        """Positions in the test split of the evaluated images: ``asked`` (or the protocol's n_test), at most ``most``.

        Sorted, and the same for every process.
        """
        count = len(self.data.test.labels)
        wanted = min(count, asked or self.protocol.n_test or count, most or count)
        return np.sort(np.random.default_rng(0).permutation(count)[:wanted])

    def _asked(self, cell: Cell) -> int | None:
        """Images that the protocol wants in a cell; None for all."""
        more = cell.attack is None and self.protocol.n_clean is not None
        return self.protocol.n_clean if more else self.protocol.n_test

    def _cells(self) -> list[Cell]:
        """The protocol's cells; a system without a risk is attacked once, not once a false-positive rate."""
        cells = self.protocol.cells(self.name, self.defense.surfaces(), self.defense.systems())
        (probe,) = self._batches(self.data.test, np.arange(1), shard=False)
        abstains: dict[str, bool] = {}
        for cell in cells:
            if cell.rate is not None and cell.system not in abstains:
                abstains[cell.system] = fooled(cell.surface, probe.x, probe.y)[1].risk is not None
        found = [cell if abstains.get(cell.system) else replace(cell, rate=None) for cell in cells]
        return [cell for number, cell in enumerate(found) if cell not in found[:number]]

    def _cell(self, cell: Cell, rows: np.ndarray, progress: Progress, task: Any) -> pa.Table:
        path = self.cells / f"{self._key(cell)}.parquet"
        if distributed.agree(path.exists()):
            return pq.read_table(path)
        fitted = cell.system, cell.rate
        if fitted not in self.thresholds:
            self.thresholds[fitted] = self._threshold(cell)
        threshold, started = self.thresholds[fitted], time.perf_counter()
        attack = cell.attack or NoAttack()
        threat = cell.threat or Threat(eps=0.0)
        surface = compiled(cell.surface) if self.protocol.compile else cell.surface
        seen = replace(surface, system=surface.attacker_output or surface.system) if cell.blind else surface
        kept = Parts(self.cells / ".partial" / path.stem)
        parts, done, standing = [], 0, 0
        for batch in self._batches(self.data.test, rows, size=self._batch_size(surface)):
            columns = kept.find(batch.index)
            if columns is None:
                result = attack(
                    seen, batch.x, batch.y, threat, index=batch.index, seed=self.protocol.seed, threshold=threshold
                )
                success, output = fooled(surface, result.x_adv, batch.y, threshold)
                result = replace(result, success=success) if cell.blind else result
                columns = batch_columns(batch, result, output, threshold)
                kept.keep(batch.index, columns)
            parts.append(columns)
            done, standing = done + len(batch.y), standing + int((~columns["success"]).sum())
            speed = done * distributed.world_size() / (time.perf_counter() - started)
            note = f"{100 * standing / done:.1f} % stand, {speed:,.0f} images/s"
            progress.update(task, completed=done * distributed.world_size(), note=note)
        gathered = _gather(parts)
        name = cell.surface.name if cell.attack else "none"
        table = cell_table(
            gathered,
            cell.system,
            attack.name,
            name,
            cell.threat,
            self.protocol.seed,
            rate=cell.rate,
            threshold=threshold,
            check=cell.check,
            evades=getattr(attack, "evades", False),
            seconds=time.perf_counter() - started,
        )
        if distributed.rank() == 0:
            write_table(table, path)
            kept.discard()
        distributed.barrier()
        return table

    def _batch_size(self, surface: Surface) -> int:
        """Images a batch: the data module's, or as many as the protocol's memory bound lets in."""
        if self.protocol.memory_gb is None:
            return self.data.eval_batch_size
        (two,) = self._batches(self.data.test, np.arange(2), shard=False)
        return batch_within(surface, two.x, two.y, self.protocol.memory_gb * 2**30, MOST)

    def _key(self, cell: Cell) -> str:
        one = None if cell.system == self.name else self.stages.get(cell.system)  # the defense's own row has settings
        identity = {"stage": one} if one else {"stages": dict(self.stages), "settings": dict(self.settings)}
        description = {
            "system": cell.system,
            "surface": cell.surface.name,
            "attack": describe(cell.attack),
            "threat": describe(cell.threat),
            "n": self._asked(cell),
            "seed": self.protocol.seed,
            "fpr": cell.rate,
            "threshold": self.protocol.threshold,
            "check": cell.check and [cell.check, self.protocol.checks_n],
            "data": self.data.fingerprint,
            "identity": identity,
            "columns": SCHEMA.names,
            **({"blind": True} if cell.blind else {}),
        }
        return hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()[:16]

    def _threshold(self, cell: Cell) -> float | None:
        if cell.rate is None:
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
        return risk_threshold(torch.cat(risks), cell.rate)

    def _batches(self, split: Split, rows: np.ndarray, shard: bool = True, size: int | None = None) -> Iterator[Batch]:
        """Unaugmented batches of the given rows; each process takes every world_size-th, none twice."""
        if shard:
            rows = rows[distributed.rank() :: distributed.world_size()]
        size = size or self.data.eval_batch_size
        for start in range(0, len(rows), size):
            index = torch.as_tensor(rows[start : start + size])
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
    check = f", {cell.check}" if cell.check else ""
    return f"{cell.system}: {cell.attack.name} on {cell.surface.name} {cell.threat.eps:.3f}{check}"


def _gather(parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every process's columns, on every process."""
    if distributed.world_size() == 1:
        return parts
    everyone: list[Any] = [None] * distributed.world_size()
    dist.all_gather_object(everyone, parts)
    return [part for shard in everyone for part in shard]
