"""Runs a protocol: every cell sharded over processes, finished cells kept, a killed evaluation continues."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from robustforge.attacks.core.surface import fooled
from robustforge.attacks.none import NoAttack
from robustforge.data.datamodule import ImageData
from robustforge.defenses.base import Defense
from robustforge.evaluation.attacking import Attacking
from robustforge.evaluation.cells import StoredCell
from robustforge.evaluation.drawing import IMAGES, random_systems
from robustforge.evaluation.fitting import check_fits
from robustforge.evaluation.identity import CellKeys
from robustforge.evaluation.lost import NOBODY, Lost
from robustforge.evaluation.progress import CellProgress
from robustforge.evaluation.protocol import Cell, Protocol
from robustforge.evaluation.rows import rows
from robustforge.evaluation.savings import without_repeats
from robustforge.evaluation.share import Share
from robustforge.fingerprint import code_state
from robustforge.records.schema import cell_table, join_tables, measured_by, write_table
from robustforge.training import distributed
from robustforge.types import UserError

log = logging.getLogger(__name__)
OTHER_CODE = "%d of %d cells were measured by other code; store.made_by_other_code=remake measures them again"


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
        attacking: from its start on, what attacks one batch.
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
    attacking: Attacking = field(init=False)
    _lost: Lost = field(init=False)

    def run(self) -> tuple[Path, dict[str, float]]:
        """Runs every cell.

        Returns:
            (path of records.parquet, means of the defense's diagnostics over the evaluated images).
        """
        tables: list[pa.Table] = []
        with self._begun() as progress:
            for cell, rows, stored in self._places():
                progress.begin(cell.label, len(rows))
                with stored.locked():
                    tables.append(self._reused(cell, stored) or self._measured(cell, rows, stored, progress))
                self._lost.note(cell, tables[-1])
                progress.end()
        if self.reused_from_other_code and distributed.rank() == 0:
            log.warning(OTHER_CODE, len(self.reused_from_other_code), len(self.measured))
        path = self.folder / "records.parquet"
        if distributed.rank() == 0:
            write_table(join_tables(tables), path)
        distributed.barrier()
        return path, self._diagnostics(self.rows())

    def run_share(self, share: Share) -> int:
        """Attacks one machine's part of every cell, for :meth:`run` to put together.

        Args:
            share: which part. All parts work on one folder of cells, or their folders are joined afterwards.

        Returns:
            How many images of cells were attacked.

        Raises:
            UserError: ``protocol.columns`` is not ``full``: what is spared in one cell follows from all of another.
        """
        if self.protocol.columns != "full":
            raise UserError("Parts of an evaluation know nothing of each other's: set protocol.columns=full.")
        count = 0
        with self._begun() as progress:
            for cell, rows, stored in self._places():
                progress.begin(cell.label, len(rows) // share.count)
                if stored.read() is None:
                    count += len(self.attacking.attack(cell, rows, NOBODY, stored.parts, share, progress).index)
                progress.end()
        return count

    def missing(self) -> dict[str, int]:
        """How many images are not attacked yet, by the label of their cell."""
        with self._begun():
            places = [(cell, rows, stored) for cell, rows, stored in self._places() if stored.read() is None]
        left = {cell.label: len(np.setdiff1d(rows, stored.parts.finished().index)) for cell, rows, stored in places}
        return {label: count for label, count in left.items() if count}

    def _begun(self) -> CellProgress:
        """Everything in its place: networks, cells, and nobody lost yet."""
        for system in filter(None, (self.defense, self.baseline)):
            system.eval().to(self.device)
        self._lost = Lost(self.protocol.columns, self.protocol.main)
        self.attacking = Attacking(self.data, self.protocol, self.device)
        self.measured = self._cells()
        self.attacking.random_systems = self.random_systems
        return CellProgress(len(self.measured), self.quiet or distributed.rank() != 0)

    def _places(self) -> Iterator[tuple[Cell, NDArray[np.int64], StoredCell]]:
        """Every cell with its images and its place in the store, one after the other: keys depend on who is lost."""
        keys = CellKeys(self.defense, self.data, self.protocol, self.stages, self.baseline)
        for cell in self.measured:
            asked = self._asked(cell)
            rows = self.rows(self.protocol.checks_n if cell.check else None, asked)
            yield cell, rows, StoredCell(self.cells, keys(cell, asked, self._lost.of(cell)), cell.label)

    def rows(self, most: int | None = None, asked: int | None = None) -> NDArray[np.int64]:
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
        (few,) = self.attacking.batches(self.data.test, some, IMAGES)
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

    def _measured(self, cell: Cell, rows: NDArray[np.int64], stored: StoredCell, bar: CellProgress) -> pa.Table:
        """Attacks the images at ``rows`` (n,), keeps what is finished batch by batch, and writes the cell."""
        if self.overwrite and distributed.rank() == 0:
            stored.parts.discard()
        distributed.barrier()
        found = self.attacking.attack(cell, rows, self._lost.of(cell), stored.parts, Share(), bar)
        table = cell_table(
            distributed.gathered(found.parts),
            cell.system,
            (cell.attack or NoAttack()).name,
            "none" if cell.attack is None else cell.surface.name,
            cell.threat,
            self.protocol.seed,
            rate=cell.rate,
            threshold=self.attacking.threshold(cell),
            check=cell.check,
            evades=getattr(cell.attack, "evades", False),
            seconds=found.seconds,
            code=code_state(),
        )
        if distributed.rank() == 0:
            stored.write(table)
        distributed.barrier()
        return table

    def _diagnostics(self, rows: NDArray[np.int64]) -> dict[str, float]:
        parts: dict[str, list[torch.Tensor]] = {}
        for batch in self.attacking.batches(self.data.test, rows, self.data.eval_batch_size):
            for name, values in self.defense.diagnostics(batch).items():
                parts.setdefault(name, []).append(values.float().cpu())
        return {name: float(torch.cat(values).mean()) for name, values in parts.items()}
