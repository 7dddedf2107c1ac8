"""Specifications of made-up tables."""

from robustforge.papers.table_file import parse_table


def table(given, **changes):
    """The specification of a table whose runs are those that its rows and columns name."""
    given = {"title": "Made-up table", "profiles": {"cpu": {"note": "ten images", "overrides": []}}, **given, **changes}
    parts = [*given["rows"], *given["columns"]]
    named = [part[key] for part in parts for key in ("run", "adapted_run", "baseline") if key in part]
    runs = [run for entry in named for run in (entry if isinstance(entry, list) else [entry])]
    return parse_table({"runs": {run: {"overrides": []} for run in runs}, **given}, "made-up.yaml")
