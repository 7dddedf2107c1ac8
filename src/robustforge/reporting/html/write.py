"""The page written to a file, from folders."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from robustforge.files import write_text
from robustforge.reporting.html.files import RunFiles, find_runs, read_run
from robustforge.reporting.html.page import html_page
from robustforge.reporting.html.paper_tables import read_tables

Settings = Callable[[Path], Mapping[str, Any]]


def write_report(
    paths: Sequence[str | Path], out: str | Path, settings: Settings | None = None, failed: Sequence[str] = ()
) -> Path:
    """Writes the page of the runs and tables of papers at or below some folders.

    Args:
        paths: run folders, or folders of them.
        out: the HTML file.
        settings: what gives a run folder's configuration as plain values, checked; None shows none.
        failed: sentences about runs without a result.

    Returns:
        ``out``.

    Raises:
        FileNotFoundError: a folder holds neither a result nor a table.
        ValueError: a result is not one that this version wrote.
    """
    tables = read_tables(paths)
    runs: list[RunFiles] = []
    for folder, name in find_runs(paths, none=bool(tables or failed)).items():
        runs.append(read_run(folder, name, settings(folder) if settings else None))
    try:
        page = html_page(runs, tables, failed)
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise ValueError(
            f"A result.json at or below {', '.join(map(str, paths))} lacks what this version writes ({error!r}): "
            "evaluate the run again."
        ) from error
    return write_text(out, page)


def write_run_report(folder: Path, settings: Mapping[str, Any] | None = None) -> Path:
    """Writes ``report.html`` into a run folder, about that run alone; returns the file.

    Args:
        folder: with ``result.json``.
        settings: its configuration as plain values.
    """
    return write_text(folder / "report.html", html_page(read_run(folder, settings=settings)))
