"""What a fit logged, kept beside its weights: whoever takes the product from the store can show how it was trained."""

from __future__ import annotations

import csv
from pathlib import Path

from lightning.pytorch.loggers import CSVLogger

from robustforge.files import atomic_write

CURVES = "curves.csv"
_FOLDER = "curves"


def curve_logger(workspace: Path) -> CSVLogger:
    """Logs a fit into the workspace of its product; one that is resumed logs another version beside the first."""
    return CSVLogger(str(workspace), name=_FOLDER)


def keep_curves(workspace: Path) -> tuple[str, ...]:
    """Puts the versions of a fit together in one file; its name, or nothing where nothing was logged.

    An epoch that was cut short and run again counts once, as it was run the second time.
    """
    versions = (workspace / _FOLDER).glob("version_*/metrics.csv")
    rows: list[dict[str, str]] = []
    for path in sorted(versions, key=lambda path: int(path.parent.name.rpartition("_")[2])):
        later = read_curves(path)
        begun = min((_step(row) for row in later), default=None)
        rows = [row for row in rows if begun is None or _step(row) < begun] + later
    if not rows:
        return ()
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with atomic_write(workspace / CURVES) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return (CURVES,)


def read_curves(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file of metrics, by column."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _step(row: dict[str, str]) -> int:
    return int(float(row.get("step") or 0))
