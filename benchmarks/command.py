"""``scripts/bench.py <name>``: measure, print each row beside its bar, exit 1 when one falls short."""

from __future__ import annotations

import argparse
import ast
import importlib
import pkgutil
import sys
from pathlib import Path
from textwrap import shorten

from rich.console import Console
from rich.table import Table

import benchmarks
from benchmarks import BenchRow


def names() -> list[str]:
    """Names of the benchmarks: the public modules of benchmarks."""
    found = (module.name for module in pkgutil.iter_modules(benchmarks.__path__))
    return sorted(name for name in found if not name.startswith("_") and name != "command")


def described(whole: bool) -> str:
    """What each benchmark measures: the first line of its docstring, cut at a screen's width, or all of it."""
    lines = []
    for name in names():
        source = Path(benchmarks.__path__[0], f"{name}.py").read_text(encoding="utf-8")
        told = (ast.get_docstring(ast.parse(source)) or "").strip()
        first = told.splitlines()[0]
        lines += [f"  {name:<16}{shorten(first, 80, placeholder=' ...')}"]
        lines += [f"      {line}" for line in told.splitlines()[1:] if whole]
    return "\n".join(lines)


def table_of(name: str, rows: list[BenchRow]) -> Table:
    """What was measured beside the bars."""
    table = Table(title=f"bench {name}: both sides of each ratio measured in this run")
    for column in ("row", "ours", "other", "unit", "ratio", "bar", "", "note"):
        table.add_column(column, justify="right" if column in ("ours", "other", "ratio") else "left", overflow="fold")
    for row in rows:
        sign = ">=" if row.higher_is_better else "<="
        verdict = "[green]reached[/]" if row.passed else "[red]short[/]"
        table.add_row(
            row.name,
            f"{row.ours:,.4g}",
            f"{row.theirs:,.4g}",
            row.unit,
            f"{row.ratio:.2f}",
            f"{sign} {row.bar:g}",
            verdict,
            row.note,
        )
    return table


def main() -> None:
    """Console entry point."""
    parser = argparse.ArgumentParser(
        prog="bench.py",
        usage="bench.py NAME ...",
        description="Measure this project against its bars; ratios, both sides in one run.",
        epilog=f"what can be measured:\n{described(whole='--help-all' in sys.argv)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", choices=names(), nargs="+", metavar="NAME", help="what to measure")
    parser.add_argument("--help-all", action="help", help="the same with all that is said about each")
    failed = False
    for name in parser.parse_args().name:
        rows = importlib.import_module(f"benchmarks.{name}").run()
        # a file or pipe has no width: the notes would be folded into columns of a few letters
        Console(width=None if sys.stdout.isatty() else 200).print(table_of(name, rows))
        failed |= not all(row.passed for row in rows)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
