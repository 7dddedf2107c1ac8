"""The command line of ``reproduce.py``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from textwrap import wrap

from robustforge.cli.table_states import tables

EXAMPLES = (
    "examples:",
    "  reproduce.py memdef/table1 profile=cpu seed=1       what a CPU trains of it in minutes",
    "  reproduce.py memdef/table1 profile=paper            the paper's networks and numbers of epochs",
    "  reproduce.py memdef/table5 --runs selector,full     some of its runs; the others as they are",
    "  reproduce.py leaderboard/digits --runs missing      what was not run, or changed since",
    "  reproduce.py mrr/table1 --show                      runs nothing; compares the results that exist",
    "  reproduce.py all profile=cpu only=cae/*,mrr/*       every table that is not fresh, with its time",
    "  reproduce.py mrr/table1 logger=wandb                its runs and the table as one group in W&B",
    "",
    "--list says of every table what is known of it: never run, in part, run, or stale, with its cost.",
)


def arguments_of_reproduce() -> argparse.Namespace:
    """What the command line of ``reproduce.py`` says."""
    parser = argparse.ArgumentParser(
        prog="reproduce.py",
        description="A paper's table beside ours, cell by cell, by one command.",
        epilog=_examples(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("table", nargs="?", help="<method>/<table>, see --list; or all: every one that is not fresh")
    parser.add_argument(
        "overrides",
        nargs="*",
        help="profile=cpu|gpu|paper (default cpu); only=<patterns> of tables for 'all' and --list; "
        "results_dir=<folder> for the result files; then overrides for every run",
    )
    parser.add_argument(
        "--list", "--help-all", action="store_true", help="print the tables, their state and cost, and stop"
    )
    parser.add_argument("--runs", help="comma-separated: run only these; missing: those not run, or changed since")
    parser.add_argument("--show", action="store_true", help="run nothing; compare the results that exist")
    return parser.parse_intermixed_args()


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
