"""Finished cells in the store: each a parquet file, and a manifest that says what it must contain."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from robustforge.evaluation.parts import Parts
from robustforge.files import write_json
from robustforge.manifest import check_files, hashes, read_object, set_aside
from robustforge.records.schema import read_parquet, write_table
from robustforge.training import distributed
from robustforge.training.locks import exclusive
from robustforge.types import DamagedError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StoredCell:
    """One cell, finished or in the making.

    The manifest is written last: records without one are those of a run that was killed in between.

    Attributes:
        folder: of the cells.
        key: of this one.
        label: for log lines.
    """

    folder: Path
    key: str
    label: str

    @property
    def path(self) -> Path:
        """Of its records."""
        return self.folder / f"{self.key}.parquet"

    @property
    def parts(self) -> Parts:
        """Its finished batches."""
        return Parts(self.folder / ".partial" / self.key)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """No other run measures this cell meanwhile, or clears away what this one has finished of it."""
        with exclusive(self.folder / ".partial" / f"{self.key}.lock", f"the cell {self.label}"):
            yield

    def read(self) -> pa.Table | None:
        """Its records, or None. What is damaged is set aside; every rank takes part."""
        return read_parquet(self.path) if distributed.agree(distributed.rank() == 0 and self._whole()) else None

    def write(self, table: pa.Table) -> None:
        """Declares it finished, and forgets its batches."""
        self._manifest.unlink(missing_ok=True)
        write_table(table, self.path)
        write_json(self._manifest, {"key": self.key, "files": hashes(self.folder, [self.path.name])})
        self.parts.discard()

    @property
    def _manifest(self) -> Path:
        return self.path.with_suffix(".json")

    def _whole(self) -> bool:
        if not self._manifest.exists():
            return False
        try:
            manifest = read_object(self._manifest)
            if manifest.get("key") != self.key:
                raise DamagedError(f"'{self._manifest}' is the manifest of another cell.")
            check_files(self.folder, manifest.get("files"), self._manifest)
            read_parquet(self.path)
        except DamagedError as error:
            if self.path.exists():
                set_aside(self.path, error)
            else:
                log.warning("%s", error)
            self._manifest.unlink()
            return False
        return True
