"""``scripts/reproduce.py <method>/<table> profile=cpu|gpu|paper``: trains and attacks what a paper's table needs.

The table shows the paper's numbers beside ours. Stages that are in the store already are not trained again.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import OverrideParseException
from rich.console import Console

from robustforge.cli import all_tables
from robustforge.cli.entry import stopped
from robustforge.cli.remembered import Digest, remembered
from robustforge.cli.replacing import make_way
from robustforge.cli.table_arguments import arguments_of_reproduce
from robustforge.cli.table_board import publish_table
from robustforge.cli.table_states import changed_runs, lines, load, open_runs, results_folder
from robustforge.config import slurm
from robustforge.config.errors import explain
from robustforge.config.identity import naming_overrides
from robustforge.config.isolated import GROUP, clean_environment, run_dir
from robustforge.config.locate import config_folder
from robustforge.config.processes import command_of, run_together
from robustforge.config.resolvers import run_folder
from robustforge.interruption import Stopped, listening
from robustforge.papers.comparison import compare
from robustforge.papers.evidence import evidence_of, evidence_path, read_evidence, write_evidence
from robustforge.papers.figures import diagnostic_lines, draw, keep
from robustforge.papers.merging import merged
from robustforge.papers.rendering import render, write
from robustforge.papers.specification import TableSpec
from robustforge.records.table import read_records
from robustforge.reporting.result import read_result
from robustforge.types import UserError

OWN = ("profile", "results_dir", "only")  # settings of this command; all others are of the runs
MISSING = "missing"  # in place of names of runs
DIGESTS = "digests.json"  # of runs, so that a second list takes no time
OF_MACHINE = ("threads", "trainer.devices")


def reproduce(
    name: str,
    profile: str,
    extra: Sequence[str],
    root: Path,
    only: Sequence[str] | None = None,
    results: Path | None = None,
    digest: Digest | None = None,
) -> int:
    """Runs and compares one table.

    Args:
        name: ``<method>/<table>``.
        profile: ``cpu``, ``gpu`` or ``paper``.
        extra: further overrides for every run.
        root: folder of the reproductions; a table with further overrides has a folder of its own there.
        only: run only these (of the others the existing results are shown, or that they were not run).
        results: folder of the result files; None writes none.
        digest: of a run's overrides; None computes it.

    Returns:
        Number of runs that failed.

    Raises:
        UserError: no such table, profile or run, overrides that cannot be read, or a run that was refused.
    """
    spec = load(name)
    _check(spec, name, profile, extra, only or ())
    console = Console()
    folder = root / name / _place(profile, extra)
    failed = _run_each(spec, name, profile, extra, only, folder, console)
    there = [run for run in spec.runs_of(profile) if run not in failed and (folder / run / "result.json").exists()]
    records = {run: read_records(folder / run) for run in there}
    others = [f"Further overrides: {' '.join(extra)}."] if extra else []
    header = [spec.title, spec.profiles[profile].note.strip(), *others, *diagnostic_lines(spec, records, folder)]
    found = {run: read_result(folder / run) for run in records}
    cells = compare(spec, {run: found[run] | {"records": records[run]} for run in records} | failed)
    console.print(render(cells, header))
    drawn = draw(spec, records, folder)
    made = [*write(cells, folder, header), *drawn]
    for path in made:
        console.print(f"wrote {path}")
    publish_table(extra, folder, cells, made)
    for pictures in sorted(folder.glob("*/figures")):
        console.print(f"pictures of {pictures.parent.name}: {pictures}")
    if results is not None and records:
        content = evidence_of(name, profile, spec, [item for item in extra if _decides(item)], cells, found)
        console.print(f"wrote {_keep(evidence_path(results, name, profile), content, spec, drawn, digest)}")
    return len(failed)


def _run_each(
    spec: TableSpec,
    name: str,
    profile: str,
    extra: Sequence[str],
    only: Sequence[str] | None,
    folder: Path,
    console: Console,
) -> dict[str, Any]:
    """Makes a table's runs, or ``only`` some; what is told of those that failed, by run."""
    failed = {}
    for run in spec.runs_of(profile):
        if only is None or run in only:
            console.rule(f"{name} ({profile}): {run}")
            if code := _run_one(run, [*spec.overrides(run, profile), *extra], folder / run):
                failed[run] = {"failed": f"exit code {code}"}
    return failed


def _keep(path: Path, new: Mapping[str, Any], spec: TableSpec, drawn: Sequence[Path], digest: Digest | None) -> Path:
    """Writes the table's result file, or what is new in it, and its figures beside it where they show all runs."""
    content = new
    if path.is_file():
        old = read_evidence(path)
        content = merged(new, old, spec, set(changed_runs(spec, new["profile"], old, digest)))
    if content["runs"].keys() == new["runs"].keys():
        keep(drawn, path.with_suffix(""))
    return write_evidence(path, content)


def _check(spec: TableSpec, name: str, profile: str, extra: Sequence[str], only: Sequence[str]) -> None:
    """Refuses what the table does not have, and overrides that no run could read."""
    if profile not in spec.profiles:
        raise UserError(f"Table '{name}' has no profile '{profile}': choose one of {', '.join(spec.profiles)}.")
    unknown = sorted(set(only) - set(spec.runs_of(profile)))
    if unknown:
        raise UserError(f"Table '{name}' has no run '{unknown[0]}': choose one of {', '.join(spec.runs_of(profile))}.")
    try:
        OverridesParser.create().parse_overrides(list(extra))
    except OverrideParseException as error:
        raise UserError(explain(error, config_folder(), "train")) from None


def _run_one(run: str, overrides: Sequence[str], folder: Path) -> int:
    """Runs one of a table's runs; its exit code. UserError where it was refused."""
    make_way(folder, overrides, OF_MACHINE)
    code = _train(overrides, folder)
    if code == 2:
        raise UserError(f"Run '{run}' was refused with the sentence above: mend that, and start again.")
    return code


def _train(overrides: Sequence[str], folder: Path) -> int:
    """Runs train.py in a process of its own; its exit code. Dashboards show a table's runs as one group."""
    environment = {**clean_environment(), GROUP: "/".join(folder.parent.parts[-3:])}
    return run_together([command_of("robustforge.cli.train", [*overrides, run_dir(folder)])], [environment])


def _results(given: str | None, extra: Sequence[str]) -> Path | None:
    """The folder of the result files; None: a table with other settings replaces the usual one only when told to."""
    if given is not None:
        return Path(given).expanduser()
    return None if any(map(_decides, extra)) else results_folder()


def _place(profile: str, extra: Sequence[str]) -> str:
    """The folder of a table's runs: their profile, and what makes them other runs than the table's own."""
    other = naming_overrides(extra, OF_MACHINE)
    return f"{profile}_{run_folder(other)}" if other else profile


def _decides(override: str) -> bool:
    """Whether an override is part of what a run is, not of where it lies or which machine it has."""
    return bool(naming_overrides([override], OF_MACHINE))


def _run(arguments: argparse.Namespace) -> int:
    words = [word for word in (arguments.table, *arguments.overrides) if word is not None]
    named = [word for word in words if "=" not in word]
    given = dict(word.split("=", 1) for word in words if word.startswith(tuple(f"{name}=" for name in OWN)))
    extra = [word for word in words if "=" in word and not word.startswith(tuple(f"{name}=" for name in OWN))]
    extra += named[1:]  # deletions; others are refused as overrides
    patterns = [pattern for pattern in given.get("only", "").split(",") if pattern]
    results = _results(given.get("results_dir"), extra)
    root = Path(os.environ.get("ROBUSTFORGE_OUTPUTS", "outputs")) / "reproduce"
    if arguments.list or not named:
        with remembered(root / DIGESTS) as digest:
            for line in lines(given.get("profile"), patterns, results or results_folder(), digest):
                print(line, flush=True)
        return 0
    profile = given.get("profile", "cpu")
    with remembered(root / DIGESTS) as digest:

        def one(name: str, runs: str | None) -> int:
            only = runs.split(",") if runs else None
            if arguments.show:
                only = []
            elif runs == MISSING:
                only = open_runs(name, profile, results, digest)
            return reproduce(name, profile, extra, root, only, results, digest)

        if named[0] == "all":
            return all_tables.run_all(lambda name: one(name, MISSING), profile, patterns, results, digest)
        return 1 if one(named[0], arguments.runs) else 0


def main() -> None:
    """Console entry point."""
    try:
        with listening(slurm.notice()):
            sys.exit(_run(arguments_of_reproduce()))
    except Stopped as stop:
        sys.exit(stopped(stop))
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
