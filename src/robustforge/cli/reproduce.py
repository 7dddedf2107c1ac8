"""``scripts/reproduce.py <method>/<table> profile=cpu|paper``: trains and attacks what a paper's table needs.

The table shows the paper's numbers beside ours. Stages that are in the store already are not trained again.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import OverrideParseException
from omegaconf import OmegaConf
from rich.console import Console

from robustforge.cli.entry import stopped
from robustforge.cli.table_board import publish_table
from robustforge.config import slurm
from robustforge.config.errors import explain
from robustforge.config.isolated import GROUP, clean_environment, run_dir
from robustforge.config.locate import config_folder
from robustforge.config.processes import command_of, run_together
from robustforge.config.resolvers import register
from robustforge.interruption import Stopped, listening
from robustforge.papers.comparison import compare
from robustforge.papers.figures import diagnostic_lines, draw
from robustforge.papers.rendering import render, write
from robustforge.papers.specification import TableSpec
from robustforge.papers.table_file import parse_table
from robustforge.records.table import Records, read_records
from robustforge.types import UserError

EXAMPLES = (
    "examples:",
    "  reproduce.py memdef/table1 profile=cpu seed=1       what a CPU trains of it in minutes",
    "  reproduce.py memdef/table1 profile=paper            the paper's networks and numbers of epochs",
    "  reproduce.py memdef/table5 --runs selector,full     some of its runs; the others as they are",
    "  reproduce.py mrr/table1 --show                      runs nothing; compares the results that exist",
    "  reproduce.py mrr/table1 logger=wandb                its runs and the table as one group in W&B",
    "",
    "--help-all lists every table with its title, runs and profiles.",
)


def tables() -> list[str]:
    """Names of the tables that can be reproduced."""
    folder = config_folder() / "reproduce"
    return sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml"))


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


def reproduce(name: str, profile: str, extra: Sequence[str], root: Path, only: Sequence[str] | None = None) -> int:
    """Runs and compares one table.

    Args:
        name: ``<method>/<table>``.
        profile: ``cpu`` or ``paper``.
        extra: further overrides for every run.
        root: folder of the reproduction.
        only: run only these (of the others the existing results are shown, or that they were not run).

    Returns:
        Number of runs that failed.

    Raises:
        UserError: no such table, profile or run, overrides that cannot be read, or a run that was refused.
    """
    spec = load(name)
    _check(spec, name, profile, extra, only or ())
    console = Console()
    folder = root / name / profile
    records: dict[str, Records] = {}
    failed: dict[str, Any] = {}
    for run in spec.runs:
        if only is None or run in only:
            console.rule(f"{name} ({profile}): {run}")
            code = _train([*spec.overrides(run, profile), *extra], folder / run)
            if code == 2:
                raise UserError(f"Run '{run}' was refused with the sentence above: mend that, and start again.")
            if code:
                failed[run] = {"failed": f"exit code {code}"}
                continue
        if (folder / run / "result.json").exists():
            records[run] = read_records(folder / run)
    header = [spec.title, spec.profiles[profile].note.strip()]
    if extra:
        header.append(f"Further overrides: {' '.join(extra)}.")
    header += diagnostic_lines(spec, records, folder)
    cells = compare(spec, records | failed)
    console.print(render(cells, header))
    made = [*write(cells, folder, header), *draw(spec, records, folder)]
    for path in made:
        console.print(f"wrote {path}")
    publish_table(name, profile, extra, folder, cells, made)
    for pictures in sorted(folder.glob("*/figures")):
        console.print(f"pictures of {pictures.parent.name}: {pictures}")
    return len(failed)


def _check(spec: TableSpec, name: str, profile: str, extra: Sequence[str], only: Sequence[str]) -> None:
    """Refuses what the table does not have, and overrides that no run could read."""
    if profile not in spec.profiles:
        raise UserError(f"Table '{name}' has no profile '{profile}': choose one of {', '.join(spec.profiles)}.")
    unknown = sorted(set(only) - set(spec.runs))
    if unknown:
        raise UserError(f"Table '{name}' has no run '{unknown[0]}': choose one of {', '.join(spec.runs)}.")
    try:
        OverridesParser.create().parse_overrides(list(extra))
    except OverrideParseException as error:
        raise UserError(explain(error, config_folder(), "train")) from None


def _train(overrides: Sequence[str], folder: Path) -> int:
    """Runs train.py in a process of its own; its exit code. Dashboards show a table's runs as one group."""
    environment = {**clean_environment(), GROUP: "/".join(folder.parent.parts[-3:])}
    return run_together([command_of("robustforge.cli.train", [*overrides, run_dir(folder)])], [environment])


def _examples() -> str:
    """Names of the tables by method, and what is often asked for."""
    groups: dict[str, list[str]] = {}
    for name in tables():
        method, _, table = name.rpartition("/")
        groups.setdefault(method, []).append(table)
    lines = [line for method, found in groups.items() for line in _wrapped(method, found)]
    return "\n".join(["tables (<method>/<table>):", *lines, "", *EXAMPLES])


def _wrapped(method: str, found: Sequence[str]) -> list[str]:
    return wrap(" ".join(found), 98, initial_indent=f"  {method:<14}", subsequent_indent=" " * 16)


def main() -> None:
    """Console entry point."""
    parser = argparse.ArgumentParser(
        prog="reproduce.py",
        description="A paper's table beside ours, cell by cell, by one command.",
        epilog=_examples(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("table", nargs="?", help="<method>/<table>; see --list")
    parser.add_argument("overrides", nargs="*", help="profile=cpu|paper (default cpu), then overrides for every run")
    parser.add_argument("--list", "--help-all", action="store_true", help="print the tables and their runs, and stop")
    parser.add_argument("--runs", help="comma-separated: run only these")
    parser.add_argument("--show", action="store_true", help="run nothing; compare the results that exist")
    arguments = parser.parse_intermixed_args()
    if arguments.list or arguments.table is None:
        for name in tables():
            spec = load(name)
            print(f"{name}: {spec.title}\n    runs: {', '.join(spec.runs)}; profiles: {', '.join(spec.profiles)}")
        return
    profiles = [item.removeprefix("profile=") for item in arguments.overrides if item.startswith("profile=")]
    extra = [item for item in arguments.overrides if not item.startswith("profile=")]
    only = [] if arguments.show else (arguments.runs.split(",") if arguments.runs else None)
    root = Path(os.environ.get("ROBUSTFORGE_OUTPUTS", "outputs")) / "reproduce"
    try:
        with listening(slurm.notice()):
            sys.exit(1 if reproduce(arguments.table, (profiles or ["cpu"])[-1], extra, root, only) else 0)
    except Stopped as stop:
        sys.exit(stopped(stop))
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
