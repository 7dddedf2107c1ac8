"""A result as one HTML page that needs no other file and asks no network."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from robustforge.reporting.figures.security import security_panel, security_panels
from robustforge.reporting.html import setup, several
from robustforge.reporting.html.files import RunFiles
from robustforge.reporting.html.images import galleries, pictures
from robustforge.reporting.html.panels import (
    WIDTH,
    figure,
    rejection_figures,
    result_figures,
    training_figures,
)
from robustforge.reporting.html.rejection import rejection_rows
from robustforge.reporting.html.sections import (
    added_rows,
    class_rows,
    cost_rows,
    duration,
    headline,
    indicator_rows,
    left_by_checks,
    single_violations,
    table_rows,
)
from robustforge.reporting.html.svg import Drawer
from robustforge.reporting.notes import statements
from robustforge.reporting.text import MISSING, NORMS

TEMPLATES = Path(__file__).parent / "templates"
EARLY = 'document.documentElement.classList.add("js");'
MOST_RUNS = 24  # that a page of several runs shows one by one
MOST_WHOLE = 4  # up to as many are shown with their images and curves
CLOSING = "Made from result.json and the records by robustforge. Every number is computed from one record an image."


def html_page(
    runs: RunFiles | Sequence[RunFiles], tables: Sequence[Mapping[str, Any]] = (), failed: Sequence[str] = ()
) -> str:
    """The page of one run, or of several beside each other.

    Args:
        runs: what was read, see :func:`robustforge.reporting.html.files.read_run`.
        tables: of papers, see :func:`robustforge.reporting.html.paper_tables.read_tables`.
        failed: sentences about runs without a result.

    Returns:
        HTML with style, script, figures and images in it. All that comes from the files is escaped, and the page's own
        script is the only one that a browser runs in it.
    """
    runs = [runs] if isinstance(runs, RunFiles) else list(runs)
    draw = Drawer()
    if len(runs) == 1 and not tables and not failed:
        view = _run(runs[0], draw, images=True)
        return _render({"title": view["name"], "run": view, "parts": view["parts"]})
    board = _several(runs, tables, failed, draw)
    heading = f"{len(runs)} runs" if runs or failed else f"{len(tables)} tables"
    return _render({"title": heading, "run": None, "several": board, "parts": _parts_of_several(board)})


def _run(run: RunFiles, draw: Drawer, images: bool) -> dict[str, Any]:
    """One run; ``images`` says whether its images, curves and everything else that is large are shown."""
    view: dict[str, Any] = {
        "name": run.name,
        "head": headline(run),
        "figures": result_figures(run, draw, class_rows(run) if images else ()),
        "statements": [],
        "rows": table_rows(run),
        "facts": setup.facts(run),
        "versions": setup.versions(run),
        "settings": setup.settings(run),
        "diagnostics": [
            (k.replace("_", " "), f"{v:.4g}") for k, v in run.result["diagnostics"].items() if v is not None
        ],
    }
    if images:
        added = added_rows(run)
        view |= {
            "statements": [line for line in statements(run.result) if line != view["head"]["sentence"]],
            "added": added,
            "by_checks": left_by_checks(run, added),
            "indicators": indicator_rows(run),
            "single": single_violations(run),
            "rejection": rejection_rows(run),
            "rejection_figures": rejection_figures(run, draw),
            "galleries": galleries(run),
            "pictures": pictures(run),
            "training": training_figures(run, draw),
            "cost": cost_rows(run),
            "seconds": duration(run.result["seconds"]) if run.result["seconds"] is not None else "",
        }
    return {**view, "parts": _parts_of_run(view)}


def _parts_of_run(view: Mapping[str, Any]) -> list[tuple[str, str]]:
    if "added" not in view:
        return [("result", "Result"), ("numbers", "All numbers"), ("setup", "How it was tested")]
    parts = [("result", "Result", True), ("attacks", "Attacks", True), ("numbers", "All numbers", True)]
    parts += [("rejection", "Rejection", bool(view["rejection"]))]
    parts += [("images", "Images", bool(view["galleries"] or view["pictures"]))]
    parts += [("training", "Training and cost", bool(view["training"] or view["cost"]))]
    parts += [("setup", "How it was tested", True)]
    return [(name, words) for name, words, shown in parts if shown]


def _several(
    runs: Sequence[RunFiles], tables: Sequence[Mapping[str, Any]], failed: Sequence[str], draw: Drawer
) -> dict[str, Any]:
    runs = several.named(runs)
    board = several.leaderboard(runs)
    places = {row["run"]: place for place, row in enumerate(board)}
    ordered = sorted(runs, key=lambda run: places[run.name])
    pairs = several.differences(ordered)
    curves = security_panels([{**run.result, "name": run.name} for run in ordered])
    security = [
        one
        for norm, lines in curves.items()
        for one in figure(
            draw,
            f"Worst case by budget, {NORMS.get(norm, norm)}",
            WIDTH,
            3.2,
            partial(security_panel, norm=norm, lines=lines, height=3.2),
        )
    ]
    return {
        "board": board,
        "rivals": several.rivals(board),
        "differences": pairs,
        "difference_figure": several.difference_figure(pairs, board[0]["run"], draw) if board else [],
        "axes": several.sweep_figures(runs, draw),
        "security": security,
        "tables": list(tables),
        "failed": list(failed),
        "runs": [_run(run, draw, images=len(ordered) <= MOST_WHOLE) for run in ordered[:MOST_RUNS]],
        "hidden": len(ordered) > MOST_RUNS,
    }


def _parts_of_several(board: Mapping[str, Any]) -> list[tuple[str, str]]:
    parts = [("leaderboard", "Leaderboard", bool(board["board"]) or bool(board["failed"]))]
    parts += [("axes", "What was varied", bool(board["axes"]))]
    parts += [("differences", "Differences", bool(board["differences"]))]
    parts += [("tables", "Tables of papers", bool(board["tables"])), ("runs", "Run by run", bool(board["runs"]))]
    return [(name, words) for name, words, shown in parts if shown]


def _render(view: dict[str, Any]) -> str:
    environment = _environment()
    style, script = ((TEMPLATES / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    hashes = Markup(" ".join(_hash(text) for text in (EARLY, script)))
    own = {
        "style": Markup(style),
        "script": Markup(script),
        "early": Markup(EARLY),
        "hashes": hashes,
        "closing": CLOSING,
    }
    return environment.get_template("page.html.j2").render(**view, **own)


def _hash(script: str) -> str:
    """How the page's policy names a script that may run."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


@cache
def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"digits": _digits, "values_of": _values_of, "duration": duration}
    return made


def _digits(value: float | None, digits: int) -> str:
    return MISSING if value is None or math.isnan(value) else f"{value:.{digits}f}"


def _values_of(rows: Iterable[Mapping[str, Any]], key: str) -> list[str]:
    """What a column of a table holds, each once; an empty value is no choice."""
    return [value for value in dict.fromkeys(str(row[key]) for row in rows) if value]
