"""What a store holds, which run folders name it, and what may go."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from robustforge.manifest import MANIFEST, check_files, read_object
from robustforge.types import DamagedError

STAGES = "stages.json"  # in a run folder: the products that its stages are
Kind = Literal["product", "cells", "damaged", "unfinished"]
RECENT = 3600.0  # seconds: nothing younger goes, because a run that is under way may be about to name it
_GIVEN = re.compile(r"given-[0-9a-f]{16}")


@dataclass
class Entry:
    """One thing in the store.

    Attributes:
        name: of it, below the store.
        kind: ``product`` of a stage, all measured ``cells`` together, a ``damaged`` copy that was set aside, or
            ``unfinished`` work.
        size: bytes.
        age: seconds since it was written.
        used_by: run folders that name it.
        problem: why it cannot be used, or empty.
    """

    name: str
    kind: Kind
    size: int
    age: float
    used_by: list[Path] = field(default_factory=list)
    problem: str = ""


def content(root: Path, runs: Sequence[Path] = ()) -> list[Entry]:
    """Everything in a store, the largest first.

    Args:
        root: of the store.
        runs: run folders that may name products.
    """
    named = {run: products_of(run) for run in runs}
    found = []
    for path in sorted(root.iterdir()):
        if path.name in (".partial", "cells"):
            continue
        kind = kind_of(path)
        if kind is not None:
            used = [run for run, names in named.items() if path.name in names]
            found.append(Entry(path.name, kind, size_of(path), _age(path), used))
    for path in sorted((root / ".partial").glob("*")):
        if path.is_dir():
            found.append(Entry(f".partial/{path.name}", "unfinished", size_of(path), _age(path)))
    cells = root / "cells"
    if cells.is_dir():
        found.append(Entry("cells", "cells", size_of(cells), _age(cells)))
    return sorted(found, key=lambda entry: -entry.size)


def kind_of(path: Path) -> Kind | None:
    """What a folder or file right in the store is; None for what no store writes."""
    if ".damaged-" in path.name:
        return "damaged"
    return "product" if (path / MANIFEST).is_file() else None


def runs_below(folders: Sequence[Path]) -> list[Path]:
    """Every folder with a configuration at or below some folders: runs, evaluations, jobs of sweeps."""
    return sorted({path.parent for folder in folders for path in folder.rglob("config.yaml")})


def products_of(run: Path) -> set[str]:
    """Names of the products that a run folder names: those of its stages, and networks that were given to it."""
    names: set[str] = set()
    for file in (STAGES, "result.json"):
        if (run / file).is_file():
            names |= set(_named(_read(run / file).get("stages")))
    text = (
        (run / "config.yaml").read_text(encoding="utf-8", errors="replace") if (run / "config.yaml").is_file() else ""
    )
    return names | set(_GIVEN.findall(text))


def _named(stages: Any) -> Iterator[str]:
    for stage in stages if isinstance(stages, list) else ():
        if isinstance(stage, Mapping) and isinstance(stage.get("key"), str):
            yield f"{stage.get('name')}-{stage['key'][:16]}"


def unsettled(runs: Sequence[Path]) -> list[Path]:
    """Runs that do not say yet which products they use: they were killed, or are under way."""
    return [run for run in runs if not any((run / file).is_file() for file in (STAGES, "result.json"))]


def disposable(entries: Sequence[Entry], root: Path, waiting: Sequence[Path], cells: bool) -> list[Entry]:
    """What may go: damaged copies, unfinished work that nobody is at, and products that no run names.

    Args:
        entries: of the store, with the runs that name them.
        root: of the store.
        waiting: runs that do not say yet what they use. Products and unfinished work that are younger than the oldest
            of these may be theirs, and stay.
        cells: whether the measured cells go too. The records in run folders stay; the same attack is run again when
            it is asked for again.
    """
    begun = min(((run / "config.yaml").stat().st_mtime for run in waiting), default=float("inf"))
    oldest = time.time() - begun
    found = []
    for entry in entries:
        theirs = entry.kind in ("product", "unfinished") and entry.age <= oldest
        wanted = entry.kind != "cells" or cells
        recent = entry.age < RECENT and entry.kind != "cells"
        if wanted and not entry.used_by and not theirs and not recent and _free(root, entry):
            found.append(entry)
    return found


def _free(root: Path, entry: Entry) -> bool:
    """Whether no process holds the lock of a product."""
    lock = root / ".partial" / f"{Path(entry.name).name}.lock"
    if not lock.exists():
        return True
    try:
        with FileLock(lock, timeout=0):
            return True
    except Timeout:
        return False


def verify(root: Path) -> Iterator[tuple[str, str]]:
    """(name, what is wrong) of every product and measured cell, an empty text where nothing is.

    The hashes of all files are computed anew.
    """
    for path in sorted(root.iterdir()):
        if kind_of(path) == "product":
            yield path.name, _problem(path, path / MANIFEST, lambda key, name=path.name: name.endswith(f"-{key[:16]}"))
    for path in sorted((root / "cells").glob("*.json")):
        problem = _problem(path.parent, path, lambda key, stem=path.stem: key == stem)
        yield f"cells/{path.stem}", problem


def _problem(folder: Path, manifest: Path, belongs: Any) -> str:
    try:
        found = read_object(manifest)
        check_files(folder, found.get("files"), manifest)
    except DamagedError as error:
        return str(error)
    return "" if belongs(str(found.get("key"))) else f"'{manifest}' is the manifest of another key."


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files below a folder."""
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def _age(path: Path) -> float:
    return time.time() - path.stat().st_mtime


def _read(path: Path) -> dict[str, Any]:
    try:
        return read_object(path)
    except DamagedError:
        return {}
