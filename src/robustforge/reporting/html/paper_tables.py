"""Tables of papers beside ours, as ``reproduce.py`` writes them, for the page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from robustforge.optional import optional
from robustforge.reporting.text import MISSING, percent


def read_tables(paths: Sequence[str | Path]) -> list[dict[str, Any]]:
    """Every ``table.json`` at or below some folders; one that cannot be read is left out with a warning."""
    tables = []
    for file in dict.fromkeys(file for path in paths for file in sorted(Path(path).rglob("table.json"))):
        with optional(str(file)):
            tables.append(_table(json.loads(file.read_text(encoding="utf-8"))))
    return tables


def _table(data: Mapping[str, Any]) -> dict[str, Any]:
    header = [str(line) for line in data["header"] if line]
    cells = data["cells"]
    columns = list(dict.fromkeys(str(cell["column"]) for cell in cells))
    rows = []
    for label in dict.fromkeys(str(cell["row"]) for cell in cells):
        mine = {str(cell["column"]): cell for cell in cells if str(cell["row"]) == label}
        first = next(iter(mine.values()))
        lines = [
            ("paper", "paper", None),
            (f"ours: {first['paper_surface']}", "ours", "n"),
            (f"adapted: {first['adapted_surface']}", "adapted", "adapted_n"),
        ]
        for place, (kind, key, count) in enumerate(lines):
            if key == "paper" or any(cell[key] is not None for cell in mine.values()):
                shown = [_cell(mine.get(name), key, count) for name in columns]
                rows.append({"label": "" if place else label, "kind": kind.replace("_", " "), "cells": shown})
    return {"title": header[0] if header else "table", "notes": header[1:], "columns": columns, "rows": rows}


def _cell(cell: Mapping[str, Any] | None, key: str, count: str | None) -> dict[str, str]:
    if cell is None or cell[key] is None:
        return {"words": MISSING, "state": ""}
    words = percent(cell[key], 1000 if count is None else int(cell[count] or 0))
    reached = key == "ours" and not cell["shortfall"]
    return {"words": words + (" ✓" if reached else ""), "state": "kept" if reached else ""}
