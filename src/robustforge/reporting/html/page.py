"""A result as one HTML page without scripts, pictures or anything from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from robustforge.indicators.rules import MEANING
from robustforge.reporting.notes import statements
from robustforge.reporting.tables import Grid, caption, run_grid

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60em;margin:2em auto;padding:0 1em;color:#222}"
    "table{border-collapse:collapse;margin:1em 0}th,td{border-bottom:1px solid #ccc;padding:.3em .8em;text-align:right}"
    "th:first-child,td:first-child{text-align:left}.bad{color:#a00}.verdict{font-size:1.2em;font-weight:600}"
    ".small{color:#555;font-size:.9em;white-space:pre-line}"
)


def html_page(result: dict[str, Any]) -> str:
    """The page: verdict, table, and what each indicator looked at.

    Args:
        result: the content of ``result.json``.
    """
    verdicts = "".join(f'<p class="verdict">{escape(line)}</p>' for line in statements(result))
    worst = [cell for cell in result["worst_case"] if cell["system"] == result["defense"]]
    indicators = "".join(_indicators(cell) for cell in worst if cell.get("indicators"))
    title = escape(str(result["name"]))
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{_STYLE}</style></head>"
        f"<body><h1>{title}</h1>{verdicts}{_table(run_grid(result))}"
        f'<p class="small">{escape(caption(result))}</p>{indicators}</body></html>\n'
    )


def _table(grid: Grid) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in ("attack", *grid.systems))
    rows = "".join(
        f"<tr><td>{escape(' '.join(heading))}</td>"
        + "".join(f"<td>{escape(' '.join(grid.words(system, heading)))}</td>" for system in grid.systems)
        + "</tr>"
        for heading in grid.headings
    )
    return f"<table><tr>{head}</tr>{rows}</table>"


def _indicators(cell: Mapping[str, Any]) -> str:
    rows = "".join(
        f"<tr><td>{escape(one['name'].replace('_', ' '))}</td>"
        f'<td class="{"bad" if one["violated"] else ""}">{"violated" if one["violated"] else "kept"}</td>'
        f"<td>{escape(MEANING.get(one['name'], ''))}</td></tr>"
        for one in cell["indicators"]
    )
    head = "<tr><th>indicator</th><th></th><th>violated when</th></tr>"
    return f"<h2>Did the attack work?</h2><table>{head}{rows}</table>"
