"""How numbers, budgets and columns are written, the same in every table and figure."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from robustforge.records.summary import WORST
from robustforge.records.table import CLEAN

MISSING = "–"  # noqa: RUF001
NORMS = {"linf": "L∞", "l2": "L2", "l1": "L1", "l0": "L0", "l0_pixels": "L0 pixels"}


def percent(value: float | None, n: int) -> str:
    """Two decimals where the sample carries them (n >= 1000), else one."""
    if value is None or math.isnan(value):
        return MISSING
    return f"{value:.{2 if n >= 1000 else 1}f}"


def half_width(interval: Sequence[float], n: int) -> str:
    """Half of the interval's width, written as ``±0.59``."""
    return f"±{percent((interval[1] - interval[0]) / 2, n)}"


def budget(eps: float | None, norm: str = "linf") -> str:
    """A budget as people write it: ``8/255``, ``0.3``; ``any size`` for an unbounded attack."""
    if eps is None or not math.isfinite(eps):
        return "any size"
    levels = eps * 255
    short = math.isclose(eps, round(eps, 2), abs_tol=1e-7)  # 0.2 is 51/255, but nobody writes it so
    if norm == "linf" and not short and abs(levels - round(levels)) < 5e-3:
        return f"{round(levels)}/255"
    return f"{eps:.3g}"


def shortened(words: str, most: int) -> str:
    """The words, or their beginning and end where they are longer than ``most`` characters."""
    half = (most - 1) // 2
    return words if len(words) <= most else f"{words[:half]}…{words[-half:]}"


def column_words(cell: Mapping[str, Any]) -> list[str]:
    """The lines of a cell's heading: attack, budget, surface, and the false-positive rate of a system that abstains."""
    return base_words(cell) + ([] if cell.get("rate") is None else [f"{100 * cell['rate']:g} % FPR"])


def base_words(cell: Mapping[str, Any]) -> list[str]:
    """The same without the rate."""
    if cell["attack"] == CLEAN:
        return ["clean"]
    words = [
        cell["attack"].replace("_", " "),
        f"{NORMS.get(cell['norm'], cell['norm'])} {budget(cell['eps'], cell['norm'])}",
    ]
    return words if cell["attack"] == WORST else [*words, cell["surface"]]


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A GitHub table; numbers to the right, the first column to the left."""

    def line(values: Sequence[str]) -> str:
        return "| " + " | ".join(str(v).replace("|", "\\|").replace("\n", " ") for v in values) + " |"

    rule = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join([line(header), line(rule), *map(line, rows)]) + "\n"


def csv_text(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table for a spreadsheet."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([header, *rows])
    return out.getvalue()
