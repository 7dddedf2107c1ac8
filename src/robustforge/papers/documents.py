"""Tables in documents: what stands between two markers is written by a command, from result files alone.

A document holds ``<!-- results: memdef/table1 -->`` and ``<!-- end of results -->``. After the name may stand
``profile=gpu``, ``rows=`` and ``columns=`` (labels separated by ``;``), and ``one_line`` for a row a line. In place of
a table's name, ``headlines`` stands for one number of each paper, ``picture/memdef`` for a method's picture and
``picture/leaderboard/digits`` for that of a leaderboard.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from robustforge.papers.claims_figure import of_board, of_method
from robustforge.papers.compared import ComparedCell
from robustforge.papers.costs import COSTS
from robustforge.papers.evidence import USUAL, cells_of, evidence_path, read_evidence
from robustforge.papers.headlines import beside, read_headlines
from robustforge.papers.rendering import by_row, footnotes, markdown_rows, was_run
from robustforge.papers.stars import star, star_note
from robustforge.reporting.text import MISSING, markdown_table, percent

HEADLINES = "headlines"
PICTURE = "picture/"  # before a method's name, or a leaderboard's
BOARDS = "leaderboard/"  # before a leaderboard's name
_BLOCK = re.compile(r"^<!-- results: (?P<what>[^\n]*?) -->\n(?P<body>.*?)^<!-- end of results -->$", re.M | re.S)
_OPENING = re.compile(r"^<!-- results: ", re.M)


@dataclass(frozen=True)
class Marker:
    """What a marker asks for.

    Attributes:
        name: ``<method>/<table>`` or ``headlines``.
        profile: of the table.
        rows: labels that are shown; empty: all.
        columns: likewise.
        one_line: a row a line, with ours alone, in place of the paper's, ours and the adapted number.
    """

    name: str
    profile: str = USUAL
    rows: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    one_line: bool = False


@dataclass
class Written:
    """A document with its tables.

    Attributes:
        text: of the document.
        tables: names of the tables in it.
        missing: those that have no result file.
    """

    text: str
    tables: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


def fill(text: str, results: Path, where: str) -> Written:
    """A document with what its markers ask for between them.

    Args:
        text: of the document.
        results: folder of the result files.
        where: name of the document, for messages.

    Raises:
        ValueError: a marker is not understood, or has no end; or a row or column is not in the table.
    """
    written = Written(text)

    def block(match: re.Match[str]) -> str:
        marker = parse_marker(match["what"], where)
        return f"<!-- results: {match['what']} -->\n{_body(marker, results, written, where)}\n<!-- end of results -->"

    filled = _BLOCK.sub(block, text)
    if len(_BLOCK.findall(text)) != len(_OPENING.findall(text)):
        raise ValueError(f"{where}: a '<!-- results: ... -->' has no '<!-- end of results -->' on a line of its own.")
    written.text = filled
    return written


def parse_marker(what: str, where: str) -> Marker:
    """What stands in a marker.

    Raises:
        ValueError: a word is not known.
    """
    name, *words = shlex.split(what)
    given: dict[str, Any] = {}
    for word in words:
        key, equal, value = word.partition("=")
        if word == "one_line":
            given[word] = True
        elif equal and key in ("rows", "columns"):
            given[key] = tuple(part.strip() for part in value.split(";"))
        elif equal and key == "profile":
            given[key] = value
        else:
            raise ValueError(f"{where}: '{word}' in a marker is none of profile=, rows=, columns=, one_line.")
    return Marker(name, **given)


def _body(marker: Marker, results: Path, written: Written, where: str) -> str:
    if marker.name.startswith(PICTURE):
        return _picture(marker.name.removeprefix(PICTURE), results)
    if marker.name == HEADLINES:
        return _headlines(results, where)
    written.tables.append(marker.name)
    path = evidence_path(results, marker.name, marker.profile)
    command = f"`python scripts/reproduce.py {marker.name} profile={marker.profile}`"
    if not path.is_file():
        written.missing.append(marker.name)
        return f"\nNot run on this version; {command} makes this table.\n"
    content = read_evidence(path)
    cells = _chosen(cells_of(content), marker, where)
    if marker.one_line:
        table, below = _one_line(cells)
    else:
        table, below = markdown_table(*markdown_rows(cells)), footnotes(cells)
    end = f"\n<sub>{'; '.join(line.rstrip('.') for line in below)}.</sub>\n" * bool(below)
    whole = not marker.rows and not marker.columns
    drawn = _figures(marker.name, path.with_suffix(""), where) * whole
    measured = _diagnostics(content) * whole
    return f"\n{command}. {content['note']}\n\n{drawn}{table}{end}{measured}\n{facts(content)}\n"


def _diagnostics(content: Mapping[str, Any]) -> str:
    """What else the runs have measured, a run a line; empty where they have not."""
    runs = {run: entry["diagnostics"] for run, entry in content["runs"].items() if entry.get("diagnostics")}
    names = list(dict.fromkeys(name for found in runs.values() for name in found))
    rows = [
        [run.replace("_", " "), *(f"{found[name]:.4g}" if name in found else MISSING for name in names)]
        for run, found in runs.items()
    ]
    return "\n" + markdown_table(["run", *(name.replace("_", " ") for name in names)], rows) if rows else ""


def _figures(table: str, folder: Path, where: str) -> str:
    """The figures that lie beside a table's result file, as its command has drawn them."""
    up = "../" * (len(Path(where).parts) - 1)
    files = sorted(folder.glob("*.png"))
    lines = [
        f"![{table}: {path.stem.replace('_', ' ')}]({up}results/{table.split('/')[0]}/{folder.name}/{path.name})"
        for path in files
    ]
    return "".join(f"{line}\n\n" for line in lines)


def _chosen(cells: Sequence[ComparedCell], marker: Marker, where: str) -> list[ComparedCell]:
    for wanted, known in ((marker.rows, {c.row for c in cells}), (marker.columns, {c.column for c in cells})):
        for label in wanted:
            if label not in known:
                raise ValueError(f"{where}: table {marker.name} has no '{label}': it has {', '.join(sorted(known))}.")
    kept = [cell for cell in cells if not marker.rows or cell.row in marker.rows]
    return [cell for cell in kept if not marker.columns or cell.column in marker.columns]


def _one_line(cells: Sequence[ComparedCell]) -> tuple[str, list[str]]:
    """A row a line: our number and its interval, or the mean over seeds and half of Student's; and what is below it."""
    columns = list(dict.fromkeys(cell.column for cell in cells))
    rows = by_row(cells)
    lines = []
    for label in (label for label, mine in rows.items() if was_run(mine)):
        shown = {cell.column: _words(cell) for cell in rows[label]}
        lines.append([label, *(shown[column] for column in columns)])
    left = [label for label, mine in rows.items() if not was_run(mine)]
    notes = [f"not run on this version: {', '.join(left)}"] if left else []
    stars = star_note(cell.violated for cell in cells if cell.metric not in COSTS)
    return markdown_table(["", *columns], lines), stars + notes


def _words(cell: ComparedCell) -> str:
    if cell.ours is None:
        return MISSING
    if cell.metric in COSTS:
        return f"{cell.ours:.2g}" if cell.ours < 10 else f"{cell.ours:.0f}"
    shown = percent(cell.ours, cell.n or 0)
    if cell.spread is not None:
        shown += f" ±{cell.spread:.1f}"
    elif cell.ours_interval is not None:
        shown += f" ({cell.ours_interval[0]:.0f} to {cell.ours_interval[1]:.0f})"
    return shown + star(cell.violated)


def _counts(sizes: Sequence[int]) -> str:
    """Numbers of images behind the cells, which differ where a cell is of the images that an attack turned."""
    return f"{sizes[0]} to {sizes[-1]}" if len(sizes) > 3 else ", ".join(map(str, sizes)) or MISSING


def facts(content: Mapping[str, Any]) -> str:
    """Where the numbers of a file come from, in a sentence."""
    runs = list(content["runs"].values())
    sizes = sorted({cell["n"] for cell in content["cells"] if cell.get("n")})
    seeds = sorted({run["seed"] for run in runs})
    commits = dict.fromkeys(f"{(run['commit'] or '?')[:9]}{' with changes' * bool(run['modified'])}" for run in runs)
    parts = [
        f"data: {', '.join(dict.fromkeys(run['data']['name'] for run in runs))}",
        f"test images: {_counts(sizes)}",
        f"seeds: {', '.join(map(str, seeds))}",
        f"version {', '.join(dict.fromkeys(str(run['version']) for run in runs))}, commit {', '.join(commits)}",
        f"{max(str(run['date'])[:10] for run in runs)}",
        f"{content['seconds'] / 60:.0f} min on {', '.join(dict.fromkeys(str(run['machine']) for run in runs))}",
    ]
    return f"<sub>{'; '.join(parts)}.</sub>"


def _picture(name: str, results: Path) -> str:
    board = name.startswith(BOARDS)
    bars = of_board(name, results) if board else of_method(name, results)
    if bars is None:  # a leaderboard's table stands below its picture, and says it
        return "" if board else "\nThe table of the picture was not run on this version.\n"
    if board:
        words, place = f"Clean, under the paper's attack and in the worst case: {bars.title}", "docs"
    else:
        words, place = f"Printed, ours and under an adapted attack: {bars.title}", "../../../../docs"
    return f"\n![{words}]({place}/figures/{picture_file(name)})\n"


def picture_file(name: str) -> str:
    """The file of a method's or a leaderboard's picture."""
    return f"{name.replace('/', '_')}.svg"


def _headlines(results: Path, where: str) -> str:
    place = "methods/{}.md" if where.startswith("docs/") else "src/robustforge/defenses/{}/README.md"
    rows, stars = [], []
    for headline in read_headlines():
        found = beside(headline, results)
        ours = percent(found.ours, found.n) + star(found.violated)
        adapted = percent(found.adapted, found.adapted_n) + star(found.adapted_violated)
        name = f"[{headline.name}]({place.format(headline.method)})"
        rows.append([name, headline.claim, percent(found.paper, 1000), ours, adapted])
        stars += [found.violated, found.adapted_violated]
    header = ["paper", "what is claimed", "printed", "ours, its protocol", "ours, adapted attack"]
    missing = [f"{MISSING}: the table was not run on this version."] * any(MISSING in row for row in rows)
    return "\n" + "\n\n".join([markdown_table(header, rows).rstrip(), *missing, *star_note(stars)]) + "\n"
