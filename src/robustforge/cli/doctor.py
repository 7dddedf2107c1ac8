"""``python scripts/doctor.py`` / ``robustforge-doctor``: is everything here that a run needs, and what to do if not."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from robustforge.cli import health
from robustforge.cli.health import Finding
from robustforge.data.sources import data_root

_MARKS = {"good": "[green]ok[/]", "note": "[yellow]note[/]", "broken": "[red]broken[/]"}


def findings(data_dir: Path, output_dir: Path) -> dict[str, list[Finding]]:
    """Everything that is checked, by topic.

    Args:
        data_dir: folder of the data sets.
        output_dir: folder of the runs, with the store in it.
    """
    return {
        "packages": health.packages(),
        "devices": health.devices(),
        "data": health.data(data_dir),
        "outputs": health.outputs(output_dir),
        "Weights & Biases": health.weights_and_biases(),
    }


def table_of(topics: dict[str, list[Finding]]) -> Table:
    """The findings as a table: what was checked, how it is, and what to do."""
    table = Table(show_header=False, box=None, pad_edge=False)
    for column, fold in (("topic", False), ("mark", False), ("said", True)):
        table.add_column(column, overflow="fold" if fold else "ellipsis", no_wrap=not fold)
    for topic, found in topics.items():
        for number, finding in enumerate(found):
            advice = f"\n[bold]-> {finding.advice}[/]" if finding.advice else ""
            table.add_row(topic if number == 0 else "", _MARKS[finding.state], finding.said + advice)
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    """Console entry point; exit code 1 when something is broken."""
    parser = argparse.ArgumentParser(
        prog="doctor.py",
        description="Checks what a run needs: packages, devices, data, the store, Weights & Biases; says what to do.",
    )
    parser.add_argument("--data-dir", help="folder of the data sets (default: ROBUSTFORGE_DATA, else data)")
    parser.add_argument(
        "--output-dir", type=Path, default=Path("outputs"), help="folder of the runs (default: outputs)"
    )
    given = parser.parse_args(arguments)
    topics = findings(data_root(given.data_dir), given.output_dir)
    Console(highlight=False, width=None if sys.stdout.isatty() else 120).print(table_of(topics))
    sys.exit(int(any(finding.state == "broken" for found in topics.values() for finding in found)))


if __name__ == "__main__":
    main()
