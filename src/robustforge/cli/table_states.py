"""Which tables exist, which have been run, and which of their results no longer belong to this code."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

from hydra.errors import HydraException
from omegaconf import OmegaConf

from robustforge.cli.remembered import Digest
from robustforge.config.dependence import digest_today
from robustforge.config.locate import config_folder
from robustforge.config.resolvers import register
from robustforge.pace import duration
from robustforge.papers.evidence import evidence_path, read_evidence, table_digest
from robustforge.papers.specification import TableSpec
from robustforge.papers.table_file import parse_table
from robustforge.types import UserError


@dataclass(frozen=True)
class State:
    """One profile of a table.

    Attributes:
        table: ``<method>/<table>``.
        profile: its name.
        word: ``never``, ``run``, ``in part`` where some of its runs are missing or have to be run together, or
            ``stale`` where a run, its settings, its source or the table's cells changed since.
        reason: why it is stale, which runs are missing, or what a table needs that was never run; else empty.
        when: date and commit, or empty.
        minutes: that it took, else that it is expected to take; None where neither is known.
        measured: whether ``minutes`` was measured.
    """

    table: str
    profile: str
    word: Literal["never", "in part", "run", "stale"]
    reason: str = ""
    when: str = ""
    minutes: float | None = None
    measured: bool = False

    @property
    def words(self) -> str:
        """The state, when it came about, what it cost and why it is so."""
        return ", ".join(word for word in (self.word, self.when, self.cost, self.reason) if word)

    @property
    def cost(self) -> str:
        """The time as words."""
        if self.minutes is None:
            return "not measured"
        return ("" if self.measured else "about ") + duration(60 * self.minutes)


def tables(patterns: Sequence[str] = ()) -> list[str]:
    """Names of the tables that can be reproduced.

    Args:
        patterns: such as ``memdef/*``; only tables that fit one of them. Empty: all.

    Raises:
        UserError: no table fits.
    """
    folder = config_folder() / "reproduce"
    every = sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml"))
    found = [name for name in every if not patterns or any(fnmatchcase(name, pattern) for pattern in patterns)]
    if not found:
        raise UserError(f"No table fits only={','.join(patterns)}: reproduce.py --list shows them all.")
    return found


def load(name: str) -> TableSpec:
    """The specification of one table.

    Raises:
        UserError: there is no such table, or its file has a mistake.
    """
    if name not in tables():
        raise UserError(f"There is no table '{name}': choose one of {', '.join(tables())}.")
    register()
    given: Any = OmegaConf.to_container(OmegaConf.load(config_folder() / "reproduce" / f"{name}.yaml"), resolve=True)
    try:
        return parse_table(given, f"conf/reproduce/{name}.yaml")
    except ValueError as error:
        raise UserError(str(error)) from error


def results_folder() -> Path:
    """Where result files lie: ``results`` of the checkout, or of the current folder for an installed package."""
    root = config_folder().parent
    return (root if (root / "pyproject.toml").is_file() else Path.cwd()) / "results"


def state_of(table: str, profile: str, folder: Path | None, digest: Digest | None = None) -> State:
    """How one profile of a table stands.

    Args:
        table: ``<method>/<table>``.
        profile: one of the table's.
        folder: of the result files; None: nothing was run.
        digest: of a run's overrides; None computes it.
    """
    return _state(table, load(table), profile, folder, digest)


def _state(table: str, spec: TableSpec, profile: str, folder: Path | None, digest: Digest | None) -> State:
    stated = spec.profiles[profile].minutes
    try:
        content = _content(table, profile, folder)
    except ValueError as error:
        return State(table, profile, "stale", str(error), minutes=stated)
    if content is None:
        return State(table, profile, "never", f"wants {spec.wants}" if spec.wants else "", minutes=stated)
    changed = next(_changes(spec, profile, content, digest), "")
    missing = _missing(spec, profile, content)
    word: Literal["in part", "run", "stale"] = "stale" if changed else "in part" if missing else "run"
    return State(table, profile, word, changed or missing, _when(content), content["seconds"] / 60, True)


def states(
    profile: str | None, patterns: Sequence[str], folder: Path | None, digest: Digest | None = None
) -> Iterator[State]:
    """All tables that fit, one after the other: those of one profile, or every profile that a table has."""
    for name in tables(patterns):
        yield from _states(name, load(name), profile, folder, digest)


def _states(
    table: str, spec: TableSpec, profile: str | None, folder: Path | None, digest: Digest | None
) -> Iterator[State]:
    """The profiles of one table, or the one that is asked for."""
    for one in spec.profiles:
        if profile in (None, one):
            yield _state(table, spec, one, folder, digest)


def lines(profile: str | None, patterns: Sequence[str], folder: Path, digest: Digest | None = None) -> Iterator[str]:
    """What ``--list`` prints, table by table, and how many tables there are of each state."""
    count: Counter[str] = Counter()
    for name in tables(patterns):
        spec = load(name)
        yield f"{name}: {spec.title}"
        drawn = [figure.file for figure in spec.figures] + [figure.file for figure in spec.curves]
        drawn += ["roc.png"] * spec.roc
        yield f"    runs: {', '.join(spec.runs)}" + (f"; figures: {', '.join(drawn)}" if drawn else "")
        for state in _states(name, spec, profile, folder, digest):
            count[state.word] += 1
            yield f"    profile={state.profile}: {state.words}"
    yield ", ".join(f"{count[word]} {word}" for word in ("run", "in part", "stale", "never"))


def open_runs(table: str, profile: str, folder: Path | None, digest: Digest | None = None) -> list[str]:
    """The runs of a table that its result file lacks, that changed since, or that have to be run together.

    All of them where the table shows other cells now, which need the records of every run. The arguments are those of
    :func:`state_of`.
    """
    spec = load(table)
    runs = spec.runs_of(profile)
    try:
        content = _content(table, profile, folder)
    except ValueError:  # of another version: nothing of it counts
        return runs
    if content is None or content["depends"] != table_digest(spec):
        return runs
    changed = set(changed_runs(spec, profile, content, digest))
    wanted = changed.union(content.get("together", ()))
    return [run for run in runs if run in wanted or run not in content["runs"]]


def changed_runs(
    spec: TableSpec, profile: str, content: Mapping[str, Any], digest: Digest | None = None
) -> Iterator[str]:
    """Which runs of a result file would be others today.

    Args:
        spec: of the table.
        profile: one of the table's.
        content: of the file.
        digest: of a run's overrides; None computes it.
    """
    for run, entry in content["runs"].items():
        if run not in spec.runs:
            continue
        try:
            today = (digest or digest_today)([*spec.overrides(run, profile), *content["overrides"]])
        except HydraException:  # a setting that it gives is no more
            today = None
        if entry["depends"] != today:
            yield run


def _content(table: str, profile: str, folder: Path | None) -> dict[str, Any] | None:
    """What the table's result file holds; None where there is none. ValueError where another version wrote it."""
    path = evidence_path(folder, table, profile) if folder else None
    return read_evidence(path) if path is not None and path.is_file() else None


def _missing(spec: TableSpec, profile: str, content: dict[str, Any]) -> str:
    """Which runs the file lacks, or cannot put together; empty where it has all."""
    runs, together = spec.runs_of(profile), content.get("together")
    lacks = [run for run in runs if run not in content["runs"]]
    if lacks:
        return f"{len(runs) - len(lacks)} of {len(runs)} runs; missing: {_some(lacks)}"
    return f"to be run together: {_some(together)}" if together else ""


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + f" and {len(names) - 4} more" * (len(names) > 4)


def _changes(spec: TableSpec, profile: str, content: dict[str, Any], digest: Digest | None) -> Iterator[str]:
    """What is not as it was when the file was written."""
    if content["depends"] != table_digest(spec):
        yield "other cells are shown now"
    for run in changed_runs(spec, profile, content, digest):
        yield f"settings or source of run '{run}' changed"


def _when(content: dict[str, Any]) -> str:
    runs = content["runs"].values()
    dates = sorted(str(run["date"])[:10] for run in runs)
    made = [((run["commit"] or run["version"] or "?")[:9], bool(run["modified"])) for run in runs]
    words = dict.fromkeys(commit + " with changes" * modified for commit, modified in made)
    return f"{dates[-1]}, commit {' and '.join(words)}" if dates else ""
