"""The table of one run, for the terminal and for Markdown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from robustforge.records.summary import WORST
from robustforge.records.table import CLEAN
from robustforge.reporting.headline import ROWS, name_of, title
from robustforge.reporting.notes import Notes, abstention_table, statements
from robustforge.reporting.text import MISSING, base_words, column_words, half_width, markdown_table, percent

MOST_COLUMNS = 7
WIDTH = 100  # characters of a line on the terminal
ABSTENTION = (
    "Of the inputs, in percent: accepted and correct, accepted and wrong, rejected. AURC: area under the error of the "
    "accepted share over that share, in percent, lower is better. AUROC and detection: risk of the images that the "
    "attack changed against the clean test images; detection at a rate takes its threshold from those clean images."
)
Heading = tuple[str, ...]


@dataclass(frozen=True)
class Grid:
    """Cells of a run by system and heading, before anything is drawn."""

    systems: list[str]
    headings: list[Heading]
    cells: dict[tuple[str, Heading], dict[str, Any]]

    def words(self, system: str, heading: Heading) -> tuple[str, str]:
        """(accuracy, half width of its interval), or (–, nothing) where nothing was recorded."""
        cell = self.cells.get((system, heading))
        if cell is None or cell["accuracy"] is None:
            return MISSING, ""
        return percent(cell["accuracy"], cell["n"]), half_width(cell["interval"], cell["n"])

    def mark(self, system: str, heading: Heading, notes: Notes) -> str:
        """The footnotes of a cell, or nothing."""
        return notes.mark(self.cells.get((system, heading)))


def run_grid(result: dict[str, Any]) -> Grid:
    """Orders a result: systems as recorded; clean first, then the attacks by norm, budget and name, worst case last."""
    everything = [*result["cells"], *result["worst_case"]]

    def rank(cell: dict[str, Any]) -> tuple[Any, ...]:
        eps = float("inf") if cell["eps"] is None else cell["eps"]
        if cell["attack"] == CLEAN:
            return 0, "", 0.0
        return (1, cell["norm"], eps) if cell["attack"] != WORST else (2, cell["norm"], eps)

    ordered = sorted(everything, key=rank)  # stable: attacks of one budget stay in the order of recording
    systems = list(dict.fromkeys(c["system"] for c in result["cells"]))
    cells = {(c["system"], tuple(column_words(c))): c for c in everything}
    rated: dict[Heading, list[Heading]] = {}  # a system that never abstains has one number for all rates
    for c in ordered:
        if c.get("rate") is not None:
            rated.setdefault(tuple(base_words(c)), []).append(tuple(column_words(c)))
    for c in everything:
        if c.get("rate") is None:
            cells |= {(c["system"], heading): c for heading in rated.get(tuple(base_words(c)), ())}
    headings: list[Heading] = []
    for c in ordered:
        headings += rated.get(tuple(base_words(c)), [tuple(column_words(c))])
    return Grid(systems, list(dict.fromkeys(headings)), cells)


def caption(result: dict[str, Any]) -> str:
    """What a reader must know to read the numbers: the measure, then the footnotes and the verdicts."""
    measure = (
        f"Accuracy in percent, ± half of Wilson's 95 % interval; {result['n_test']} images of the {result['split']} "
        f"split, seed {result['seed']}. An attack succeeds on an image when its label is wrong, within the budget, and "
        "accepted; the worst case is taken per image over all recorded attacks and counts clean errors and rejections."
    )
    named = {cell["system"] for cell in result["cells"]} - {"undefended", "baseline"}
    rows = [f"Row {name}: {words}." for name, words in ROWS.items() if name in named]
    return "\n".join([measure, *rows, *Notes(result).lines(), *statements(result)])


def _layout(grid: Grid, turned: bool = False) -> tuple[list[str], list[tuple[Heading, list[tuple[str, Heading]]]]]:
    """(header, rows of labels and (system, heading)s); systems become columns if asked, or with many headings."""
    if turned or len(grid.headings) > MOST_COLUMNS:
        rows = [(_three(heading), [(system, heading) for system in grid.systems]) for heading in grid.headings]
        return ["attack", "budget", "surface", *grid.systems], rows
    header = ["system", *("\n".join(heading) for heading in grid.headings)]
    return header, [((system,), [(system, heading) for heading in grid.headings]) for system in grid.systems]


def render_run(result: dict[str, Any]) -> Table:
    """The table of one run, below its verdict.

    Systems become columns when there are more than seven headings, or when the table would be wider than ``WIDTH``.
    """
    table = _rendered(result, turned=False)
    return table if Console(width=10 * WIDTH).measure(table).maximum <= WIDTH else _rendered(result, turned=True)


def _rendered(result: dict[str, Any], turned: bool) -> Table:
    grid, notes = run_grid(result), Notes(result)
    header, rows = _layout(grid, turned)
    words = Text(title(result), style="bold not italic")
    table = Table(title=words, title_justify="left", caption=Text(caption(result)), caption_justify="left")

    def cell(system: str, heading: Heading) -> Text:
        value, half = grid.words(system, heading)
        mark = grid.mark(system, heading, notes)
        style = "bold" if heading[0] == "worst case" else ""
        text = Text.assemble((value, style), " ", (half, "dim")) if half else Text(value)
        return text.append(f" {mark}", "red") if mark else text

    for place, name in enumerate(header):
        label = place < len(rows[0][0])
        table.add_column(escape(name), no_wrap=label, justify="left" if label else "right")
    for labels, cells in rows:
        table.add_row(*map(escape, labels), *(cell(*place) for place in cells))
    return table


def markdown_run(result: dict[str, Any]) -> str:
    """The same table as GitHub Markdown, with its title and caption."""
    grid, notes = run_grid(result), Notes(result)
    header, rows = _layout(grid)

    def cell(system: str, heading: Heading) -> str:
        return " ".join([*grid.words(system, heading), grid.mark(system, heading, notes)]).strip()

    table = markdown_table(header, [[*labels, *(cell(*place) for place in cells)] for labels, cells in rows])
    parts = [f"### {name_of(result)}", table.rstrip(), caption(result).replace("\n", "\n\n")]
    abstained = abstention_table(result)
    if abstained is not None:
        parts += [ABSTENTION, markdown_table(*abstained).rstrip()]
    return "\n\n".join(parts) + "\n"


def render_abstention(result: dict[str, Any]) -> Table | None:
    """What systems with a risk rejected, for the terminal; None where no risk was recorded."""
    abstained = abstention_table(result)
    if abstained is None:
        return None
    header, rows = abstained
    table = Table(title="abstention", caption=Text(ABSTENTION), caption_justify="left")
    for place, name in enumerate(header):
        table.add_column(escape(name), justify="right" if place else "left")
    for row in rows:
        table.add_row(*map(escape, row))
    return table


def _three(heading: Heading) -> Heading:
    """(attack, budget, surface), where the false-positive rate is written with the budget."""
    *words, last = heading
    if last.endswith("FPR"):
        name, *rest = words
        budget, surface = (*rest, "", "")[:2]
        return name, f"{budget} {last}".strip(), surface
    return (*heading, "", "")[:3]


def terminal() -> Console:
    """Where tables are printed: as wide as the terminal, but no line is longer than ``WIDTH``."""
    console = Console()
    return Console(width=min(console.width, WIDTH) if console.is_terminal else WIDTH)
