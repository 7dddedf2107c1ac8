"""``python scripts/store.py`` / ``robustforge-store``: what the store holds, whether it is whole, and what may go."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from robustforge.config.store_content import Entry, content, disposable, runs_below, unsettled, verify
from robustforge.types import UserError

HELP = """\
  store.py list       every product, its size, its age, and how many run folders name it
  store.py size       how much lies there, by kind
  store.py verify     compares every file with the SHA-256 in its manifest; exit code 1 where one differs
  store.py prune      shows what no run folder names any more, and removes nothing
  store.py prune yes=true                 removes it
  store.py prune cells=true               the measured cells too: the records in run folders stay

settings:
  store=outputs/store     the store
  runs=outputs,/elsewhere/outputs   folders of the runs that use it (default: the folder that the store is in)

Products that any run folder names stay, and so do networks that were given to a run (given-...), whatever made them.
Products of a run that has not finished stay as long as its folder is there."""
ACTIONS = ("list", "size", "verify", "prune")


def show(entries: Sequence[Entry], title: str, console: Console) -> None:
    """Prints what there is as a table."""
    table = Table(title=title)
    for name in ("name", "kind", "size", "age", "runs"):
        table.add_column(name, justify="left" if name in ("name", "kind") else "right", overflow="fold")
    for entry in entries:
        named = str(len(entry.used_by)) if entry.kind == "product" else ""
        table.add_row(entry.name, entry.kind, size_words(entry.size), age_words(entry.age), named)
    console.print(table)


def size_words(size: float) -> str:
    """``12.3 MB``."""
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def age_words(seconds: float) -> str:
    """``3 h``, ``12 days``."""
    return f"{seconds / 86400:.0f} days" if seconds > 2 * 86400 else f"{seconds / 3600:.0f} h"


def prune(root: Path, runs: Sequence[Path], cells: bool, really: bool, console: Console) -> list[Entry]:
    """Shows what may go and, if asked to, removes it; what may go is returned.

    Raises:
        UserError: no run folder was found: then everything would go, and most likely the folder is the wrong one.
    """
    if not runs:
        raise UserError("No run folder was found, so that everything would go: give runs=<folder of your runs>.")
    waiting = unsettled(runs)
    found = disposable(content(root, runs), root, waiting, cells)
    console.print(f"{len(runs)} run folders were looked at.")
    if waiting:
        console.print(f"{len(waiting)} have not finished, such as {waiting[0]}: what is younger stays.")
    if not found:
        console.print("Nothing is to go.")
        return []
    show(found, "to go" if not really else "removed", console)
    total = size_words(sum(entry.size for entry in found))
    if not really:
        console.print(f"{total} would be free. Nothing was removed: give yes=true to remove it.")
        return found
    for entry in found:
        path = root / entry.name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    console.print(f"{total} are free.")
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Console entry point."""
    parser = argparse.ArgumentParser(
        prog="store.py",
        usage="store.py list|size|verify|prune [store=outputs/store] [runs=outputs] [cells=true] [yes=true]",
        description="Looks after the store of trained stages and measured cells.",
        epilog=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("action", choices=ACTIONS, metavar="ACTION", help="list | size | verify | prune")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="see below")
    parser.add_argument("--yes", action="store_true", help="as yes=true")
    given = parser.parse_intermixed_args(arguments)
    try:
        sys.exit(_run(given.action, _settings(given.settings), bool(given.yes)))
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(2)


def _settings(items: Sequence[str]) -> dict[str, str]:
    settings = {"store": "outputs/store", "runs": "", "cells": "false", "yes": "false"}
    for item in items:
        key, equal, value = item.partition("=")
        if not equal or key not in settings:
            raise UserError(f"'{item}' is no setting: give {', '.join(f'{name}=' for name in settings)}.")
        settings[key] = value
    for key in ("cells", "yes"):
        if settings[key] not in ("true", "false"):
            raise UserError(f"{key} is '{settings[key]}': give true or false.")
    return settings


def _run(action: str, settings: dict[str, str], yes: bool) -> int:
    root = Path(settings["store"])
    if not root.is_dir():
        raise UserError(f"There is no store at '{root}': give store=<folder>, such as store=outputs/store.")
    folders = [Path(name) for name in settings["runs"].split(",") if name] or [root.absolute().parent]
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    if action == "verify":
        return _verify(root)
    if action == "prune":
        prune(root, runs_below(folders), settings["cells"] == "true", yes or settings["yes"] == "true", console)
        return 0
    entries = content(root, runs_below(folders))
    if action == "list":
        show(entries, str(root), console)
    for kind in dict.fromkeys(entry.kind for entry in entries):
        mine = [entry for entry in entries if entry.kind == kind]
        print(f"{kind}: {len(mine)}, {size_words(sum(entry.size for entry in mine))}")
    print(f"in all: {size_words(sum(entry.size for entry in entries))}")
    return 0


def _verify(root: Path) -> int:
    found = list(verify(root))
    bad = [(name, problem) for name, problem in found if problem]
    for name, problem in bad:
        print(f"damaged: {name}: {problem}")
    print(f"{len(found) - len(bad)} of {len(found)} are whole.")
    if bad:
        print("A run that wants a damaged one sets it aside and makes it again.")
    return int(bool(bad))


if __name__ == "__main__":
    main()
