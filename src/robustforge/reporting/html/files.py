"""What the page is made from: the files of a run folder, read as data. Nothing in them is believed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from robustforge.files import read_arrays
from robustforge.optional import optional
from robustforge.records.table import Records, read_records
from robustforge.reporting.figures.curves import Series, read_metrics
from robustforge.reporting.figures.style import Arrays
from robustforge.reporting.headline import name_of
from robustforge.reporting.result import read_result

LARGEST = 64 * 2**20  # bytes of a file of arrays that is still read
PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class RunFiles:
    """One run.

    Attributes:
        name: shown for it.
        result: content of ``result.json``.
        records: of its images; None where only the result is there.
        metrics: training curves by stage.
        arrays: what its pictures are drawn from, by name.
        pictures: content of its PNG files, by name.
        settings: its configuration as plain values; empty where it is not known.
        overrides: what it was started with, as a job of a sweep.
        environment: hardware and fingerprint of the data.
    """

    name: str
    result: Mapping[str, Any]
    records: Records | None = None
    metrics: Mapping[str, Series] = field(default_factory=dict)
    arrays: Mapping[str, Arrays] = field(default_factory=dict)
    pictures: Mapping[str, bytes] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    overrides: Sequence[str] = ()
    environment: Mapping[str, Any] = field(default_factory=dict)

    @property
    def data(self) -> str:
        """Name of the data set: the result's, else the configuration's; empty where neither tells."""
        told = self.result.get("data") or self.settings.get("dataset")
        return str(told.get("name") or "") if isinstance(told, Mapping) else ""


def read_run(folder: Path, name: str = "", settings: Mapping[str, Any] | None = None) -> RunFiles:
    """Reads a run folder; what cannot be read is left out with a warning, but for the result.

    Args:
        folder: with ``result.json``.
        name: shown for it; the run's own where empty.
        settings: its configuration, checked by the caller.

    Raises:
        FileNotFoundError: it has no result.
        ValueError: its result is not one.
    """
    result = read_result(folder)
    records: Records | None = None
    metrics: dict[str, Series] = {}
    arrays: dict[str, Arrays] = {}
    pictures: dict[str, bytes] = {}
    with optional(f"records of {folder}"):
        records = read_records(folder)
    for stage in sorted(path for path in (folder / "metrics").glob("*") if path.is_dir()):
        with optional(f"metrics of {stage}"):
            metrics[stage.name] = read_metrics(stage)
    for path in sorted(folder.glob("*.npz")):
        with optional(f"arrays of {path}"):
            found = read_arrays(path) if path.stat().st_size <= LARGEST else None
            if found and "kind" in found:
                arrays[path.stem] = found
    for path in sorted((folder / "figures").glob("*.png")):
        if path.stem in arrays and path.stat().st_size <= LARGEST:
            content = path.read_bytes()
            pictures |= {path.stem: content} if content.startswith(PNG) else {}
    overrides = _json(folder / "overrides.json", list)
    environment = _json(folder / "environment.json", dict)
    texts = [str(one) for one in overrides]
    return RunFiles(
        name or name_of(result), result, records, metrics, arrays, pictures, settings or {}, texts, environment
    )


def _json(path: Path, kind: type) -> Any:
    found = None
    if path.is_file():
        with optional(str(path)):
            found = json.loads(path.read_text(encoding="utf-8"))
    return found if isinstance(found, kind) else kind()


def find_runs(paths: Sequence[str | Path], none: bool = False) -> dict[Path, str]:
    """The run folders at or below some folders, in order, with a name for each that tells it from the others.

    Args:
        paths: run folders, or folders of them (sweeps, reproductions, evaluations).
        none: whether a folder may hold no result.

    Raises:
        FileNotFoundError: one of them holds no result.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        here = sorted(result.parent for result in path.rglob("result.json"))
        if not here and not none:
            raise FileNotFoundError(f"There is no result.json at or below '{path}': give the folder of a finished run.")
        found += [folder for folder in here if folder not in found]
    if len(found) < 2:
        return dict.fromkeys(found, "")
    parts = [folder.resolve().parts for folder in found]
    shared = 0
    while shared < min(map(len, parts)) - 1 and len({one[: shared + 1] for one in parts}) == 1:
        shared += 1
    return {folder: "/".join(part[shared:]) for folder, part in zip(found, parts, strict=True)}
