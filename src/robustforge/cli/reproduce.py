"""``scripts/reproduce.py <paper>/<table> profile=cpu|paper``: train what lacks, attack, print paper beside ours."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from rich.console import Console

from robustforge.config.isolated import clean_environment
from robustforge.config.locate import config_folder
from robustforge.config.resolvers import register
from robustforge.papers import figures as beside_table
from robustforge.papers.rendering import compare, render, write
from robustforge.types import UserError


def tables() -> list[str]:
    """Names of the tables that can be reproduced."""
    folder = config_folder() / "reproduce"
    return sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml"))


def load(name: str) -> dict[str, Any]:
    """The specification of one table.

    Raises:
        UserError: there is no such table.
    """
    if name not in tables():
        raise UserError(f"There is no table '{name}': choose one of {', '.join(tables())}.")
    register()
    spec = OmegaConf.to_container(OmegaConf.load(config_folder() / "reproduce" / f"{name}.yaml"), resolve=True)
    assert isinstance(spec, dict)
    return {str(key): value for key, value in spec.items()}


def overrides_of(spec: dict[str, Any], run: str, profile: str) -> list[str]:
    """train.py's overrides for one run of a table: the run's own, the profile's, the run's for that profile."""
    plan = spec["runs"][run]
    return [*plan["overrides"], *spec["profiles"][profile]["overrides"], *plan.get(profile, [])]


def reproduce(name: str, profile: str, extra: list[str], root: Path, only: list[str] | None = None) -> int:
    """Runs and compares one table.

    Args:
        name: ``<paper>/<table>``.
        profile: ``cpu`` or ``paper``.
        extra: further overrides for every run.
        root: folder of the reproduction.
        only: run only these (the others are shown as they lie, or as not run).

    Returns:
        Number of runs that failed.

    Raises:
        UserError: no such table or profile.
    """
    spec = load(name)
    if profile not in spec["profiles"]:
        raise UserError(f"Table '{name}' has no profile '{profile}': choose one of {', '.join(spec['profiles'])}.")
    console = Console()
    folder = root / name / profile
    results: dict[str, Any] = {}
    failed = 0
    for run in spec["runs"]:
        out = folder / run
        if only is None or run in only:
            console.rule(f"{name} ({profile}): {run}")
            command = [
                sys.executable,
                "-m",
                "robustforge.cli.train",
                *overrides_of(spec, run, profile),
                *extra,
                f"hydra.run.dir='{out}'",
            ]
            code = subprocess.run(command, env=clean_environment(), check=False).returncode
            if code:
                results[run] = {"failed": f"exit code {code}"}
                failed += 1
                continue
        results[run] = out / "records.parquet" if (out / "result.json").exists() else None
    header = [spec["title"], spec["profiles"][profile]["note"].strip()]
    if extra:
        header.append(f"Further overrides: {' '.join(extra)}.")
    header += beside_table.told(spec, results)
    cells = compare(spec, results)
    console.print(render(cells, header))
    for path in [*write(cells, folder, header), *beside_table.draw(spec, results, folder)]:
        console.print(f"wrote {path}")
    for pictures in sorted(folder.glob("*/figures")):
        console.print(f"pictures of {pictures.parent.name}: {pictures}")
    return failed


def main() -> None:
    """Console entry point."""
    parser = argparse.ArgumentParser(
        prog="reproduce.py",
        description="A paper's table beside ours, cell by cell, by one command.",
        epilog="example: reproduce.py memdef/table1 profile=cpu seed=1",
    )
    parser.add_argument("table", nargs="?", help="<paper>/<table>; see --list")
    parser.add_argument("overrides", nargs="*", help="profile=cpu|paper (default cpu), then overrides for every run")
    parser.add_argument("--list", action="store_true", help="print the tables and their runs, and stop")
    parser.add_argument("--runs", help="comma-separated: run only these")
    parser.add_argument("--show", action="store_true", help="run nothing; compare what is there")
    arguments = parser.parse_args()
    if arguments.list or arguments.table is None:
        for name in tables():
            spec = load(name)
            print(
                f"{name}: {spec['title']}\n    runs: {', '.join(spec['runs'])}; profiles: {', '.join(spec['profiles'])}"
            )
        return
    profile, extra = "cpu", []
    for item in arguments.overrides:
        if item.startswith("profile="):
            profile = item.removeprefix("profile=")
        else:
            extra.append(item)
    only = [] if arguments.show else (arguments.runs.split(",") if arguments.runs else None)
    root = Path(os.environ.get("ROBUSTFORGE_OUTPUTS", "outputs")) / "reproduce"
    try:
        sys.exit(1 if reproduce(arguments.table, profile, extra, root, only) else 0)
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
