"""Runs a protocol: every cell sharded over processes, finished cells kept, a killed evaluation continues."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from robustforge.attacks.core.batching import batch_within
from robustforge.attacks.core.surface import Surface, compiled, fooled
from robustforge.attacks.none import NoAttack
from robustforge.data.datamodule import ImageData
from robustforge.data.resident import Split
from robustforge.defenses.base import Defense
from robustforge.evaluation.calibration import risk_threshold
from robustforge.evaluation.cells import StoredCell
from robustforge.evaluation.columns import batch_columns
from robustforge.evaluation.drawing import BATCH, IMAGES, random_systems
from robustforge.evaluation.fitting import check_fits
from robustforge.evaluation.identity import CellKeys
from robustforge.evaluation.lost import NOBODY, Lost, Sparing, spared
from robustforge.evaluation.progress import CellProgress
from robustforge.evaluation.protocol import Cell, Protocol
from robustforge.evaluation.rows import rows
from robustforge.evaluation.savings import without_repeats
from robustforge.fingerprint import code_state
from robustforge.randomness import global_draws
from robustforge.records.schema import cell_table, join_tables, measured_by, write_table
from robustforge.training import distributed
from robustforge.types import AttackResult, Batch, DefenseOutput, Threat, UserError

log = logging.getLogger(__name__)
OTHER_CODE = "%d of %d cells were measured by other code; store.made_by_other_code=remake measures them again"
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
        stages: key of every stage's product, by stage name; empty for a defense that was not trained here.
        device: where it runs.
        quiet: no progress bar.
        overwrite: attack again although finished cells are there.
        made_by_other_code: ``warn`` uses cells that another version of the package measured, ``remake`` measures again.
        baseline: another trained system, attacked like the defense's own rows; it becomes the row ``baseline``.
        reused_from_other_code: after :meth:`run`, labels of the cells that other code measured.
        random_systems: after :meth:`run`, rows whose systems answer the same image differently. Their draws go by the
            batch, which has ``drawing.BATCH`` images whatever the data module's says.
        measured: after :meth:`run`, its cells.
        left_out: after :meth:`run`, a sentence for each kind of cell that could not differ from another one.
    """

    name: str
    defense: Defense
    data: ImageData
    protocol: Protocol
    folder: Path
    cells: Path
    stages: Mapping[str, str]
    device: torch.device
    quiet: bool = False
    overwrite: bool = False
    made_by_other_code: str = "warn"
    baseline: Defense | None = None
    reused_from_other_code: list[str] = field(default_factory=list, init=False)
    random_systems: list[str] = field(default_factory=list, init=False)
    measured: list[Cell] = field(default_factory=list, init=False)
    left_out: list[str] = field(default_factory=list, init=False)
    _lost: Lost = field(init=False)
    thresholds: dict[tuple[str, float | None], float | None] = field(default_factory=dict, init=False)  # fitted once

    def run(self) -> tuple[Path, dict[str, float]]:
        """Runs every cell.

        Returns:
            (path of records.parquet, means of the defense's diagnostics over the evaluated images).
        """
        for system in filter(None, (self.defense, self.baseline)):
            system.eval().to(self.device)
        cells = self.measured = self._cells()
        keys = CellKeys(self.defense, self.data, self.protocol, self.stages, self.baseline)
        tables: list[pa.Table] = []
        self._lost = Lost(self.protocol.columns)
        with CellProgress(len(cells), self.quiet or distributed.rank() != 0) as progress:
            for cell in cells:
                rows = self.rows(self.protocol.checks_n if cell.check else None, self._asked(cell))
                progress.begin(cell.label, len(rows))
                stored = StoredCell(self.cells, keys(cell, self._asked(cell), self._lost.of(cell)), cell.label)
                with stored.locked():
                    tables.append(self._reused(cell, stored) or self._measured(cell, rows, stored, progress))
                self._lost.note(cell, tables[-1])
                progress.end()
        if self.reused_from_other_code and distributed.rank() == 0:
            log.warning(OTHER_CODE, len(self.reused_from_other_code), len(cells))
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
        """The protocol's cells; a system without a risk is attacked once for all rates, and nothing twice."""
        own, others = self.defense.surfaces(), rows(self.defense, self.baseline)
        some = np.arange(min(IMAGES, len(self.data.test.labels)))
        (few,) = self._batches(self.data.test, some, shard=False, size=IMAGES)
        self.random_systems = random_systems({**others, self.name: own}, few)
        cells = self.protocol.cells(self.name, own, others, self.random_systems)
        check_fits(cells, self.defense, self.data)
        abstains: dict[str, bool] = {}
        for cell in cells:
            if (cell.rate is not None or self.protocol.threshold is not None) and cell.system not in abstains:
                abstains[cell.system] = fooled(cell.surface, few.x, few.y)[1].risk is not None
        rated = [cell if abstains.get(cell.system) else replace(cell, rate=None) for cell in cells]
        rejecting = [system for system, risk in abstains.items() if risk]
        cells, self.left_out = without_repeats(rated, rejecting, self.protocol.main)
        return cells

    def _reused(self, cell: Cell, stored: StoredCell) -> pa.Table | None:
        """The cell's records where they are there and may be used."""
        table = None if self.overwrite else stored.read()
        if table is None or measured_by(table) == code_state()["source"]:
            return table
        if self.made_by_other_code == "remake":
            return None
        self.reused_from_other_code.append(cell.label)
        return table

    def _measured(self, cell: Cell, rows: np.ndarray, stored: StoredCell, progress: CellProgress) -> pa.Table:
        """Attacks the images at ``rows`` (n,), keeps what is finished batch by batch, and writes the cell."""
        if (cell.system, cell.rate) not in self.thresholds:
            self.thresholds[cell.system, cell.rate] = self._threshold(cell)
        threshold, started = self.thresholds[cell.system, cell.rate], time.perf_counter()
        surface = compiled(cell.surface) if self.protocol.compile else cell.surface
        kept = stored.parts
        if self.overwrite and distributed.rank() == 0:
            kept.discard()
        distributed.barrier()
        lost, parts = self._lost.of(cell), list[Mapping[str, Any]]()
        for batch in self._batches(self.data.test, rows, size=self.batch_size(cell.system, surface)):
            columns = kept.find(batch.index)
            if columns is None:
                result, output = self.attacked(cell, surface, batch, threshold, lost)
                columns = batch_columns(batch, result, output, threshold, spared(batch.index, lost))
                kept.keep(batch.index, columns)
            parts.append(columns)
            progress.advance(columns["success"])
        table = cell_table(
            distributed.gathered(parts),
            cell.system,
            (cell.attack or NoAttack()).name,
            "none" if cell.attack is None else cell.surface.name,
            cell.threat,
            self.protocol.seed,
            rate=cell.rate,
            threshold=threshold,
            check=cell.check,
            evades=getattr(cell.attack, "evades", False),
            seconds=time.perf_counter() - started,
            code=code_state(),
        )
        if distributed.rank() == 0:
            stored.write(table)
        distributed.barrier()
        return table

    def attacked(
        self, cell: Cell, surface: Surface, batch: Batch, threshold: float | None, lost: NDArray[np.int64] = NOBODY
    ) -> tuple[AttackResult, DefenseOutput]:
        """What a cell's attack makes of one batch but the samples ``lost`` (k,), and what the system answers to it."""
        attack, threat = Sparing(cell.attack or NoAttack(), lost), cell.threat or Threat(eps=0.0)
        seen = replace(surface, system=surface.attacker_output or surface.system) if cell.blind else surface
        how = {"index": batch.index, "seed": self.protocol.seed, "threshold": threshold}
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
        (two,) = self._batches(self.data.test, np.arange(2), shard=False, size=2)
        return batch_within(surface, two.x, two.y, bound * 2**30, BATCH if system in self.random_systems else MOST)

    def _usual_size(self, system: str) -> int:
        return BATCH if system in self.random_systems else self.data.eval_batch_size

    def _threshold(self, cell: Cell) -> float | None:
        if cell.rate is None:
            return self.protocol.threshold
        risks, calibration = [], self.data.calibration
        everyone, size = np.arange(len(calibration.labels)), self._usual_size(cell.system)
        for batch in self._batches(calibration, everyone, shard=False, size=size):
            with global_draws(self.protocol.seed, batch.index):
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
            x = split.pixels(index, self.device)
            yield Batch(x, split.labels[index].to(self.device), index.to(self.device))

    def _diagnostics(self, rows: np.ndarray) -> dict[str, float]:
        parts: dict[str, list[torch.Tensor]] = {}
        for batch in self._batches(self.data.test, rows, shard=False):
            for name, values in self.defense.diagnostics(batch).items():
                parts.setdefault(name, []).append(values.float().cpu())
        return {name: float(torch.cat(values).mean()) for name, values in parts.items()}
