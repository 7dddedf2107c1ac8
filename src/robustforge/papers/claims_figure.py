"""The pictures of the documents: what the papers print, and what attacks leave of it; and the leaderboards."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill

import matplotlib as mpl

from robustforge.papers.evidence import USUAL, cells_of, evidence_path, read_evidence
from robustforge.papers.headlines import adapted_in, beside, left_by, read_headlines
from robustforge.papers.rendering import by_row
from robustforge.papers.stars import star
from robustforge.reporting.figures.style import MAIN_COLOR, MUTED, WORST_COLOR, drawing
from robustforge.reporting.text import MISSING

_MARK = "<!-- robustforge-data: "
_WIDEST = 52  # characters of a label's line
_COLORS = (MUTED, MAIN_COLOR, WORST_COLOR)
CLAIMED = ("printed", "ours, its protocol", "ours, adapted attack")
BOARD = ("clean", "the paper's attack", "worst case, 5 % false positives")  # columns of a leaderboard


@dataclass(frozen=True)
class Bars:
    """One picture.

    Attributes:
        title: above it.
        groups: three numbers by label, in percent; None where one is missing.
        kinds: what the three are.
    """

    title: str
    groups: Mapping[str, Sequence[float | None]]
    kinds: Sequence[str] = CLAIMED

    @property
    def text(self) -> str:
        """All that is shown, as one line."""
        return json.dumps({"title": self.title, "groups": self.groups, "kinds": self.kinds})


def first_page(results: Path) -> Bars:
    """One number of each paper."""
    groups = {}
    for one in read_headlines():
        found = beside(one, results)
        groups[f"{one.name}:\n{one.claim}"] = _rounded(found.paper, found.ours, found.adapted)
    return Bars("", groups)


def of_method(method: str, results: Path) -> Bars | None:
    """The rows of the table that a method's headline is from, in its column; None where that was not run."""
    for one in read_headlines():
        path = evidence_path(results, one.table, one.profile)
        if one.method == method and path.is_file():
            cells = cells_of(read_evidence(path))
            groups = {
                cell.row: _rounded(cell.paper, cell.ours, left_by(one, adapted_in(one, cells, cell.row)))
                for cell in cells
                if cell.column == one.column and cell.ours is not None
            }
            return Bars(f"{one.table}, {one.column}", groups)
    return None


def of_board(table: str, results: Path) -> Bars | None:
    """The rows of a leaderboard, the highest worst case first; None where none was run.

    A star at a label says that an indicator speaks against one of its numbers.
    """
    path = evidence_path(results, table, USUAL)
    if not path.is_file():
        return None
    groups = {}
    for row, mine in by_row([cell for cell in cells_of(read_evidence(path)) if cell.ours is not None]).items():
        ours = {cell.column: cell.ours for cell in mine}
        against = [name for cell in mine if cell.column in BOARD for name in cell.violated]
        groups[row + star(against)] = _rounded(*(ours.get(column) for column in BOARD))

    def worst_case(row: str) -> float:
        value = groups[row][-1]
        return -1.0 if value is None else value

    return Bars(table, {row: groups[row] for row in sorted(groups, key=worst_case, reverse=True)}, BOARD)


def is_drawn(path: Path, bars: Bars) -> bool:
    """Whether a picture shows these numbers."""
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    return text.partition(_MARK)[2].partition(" -->")[0] == bars.text


def draw(path: Path, bars: Bars) -> None:
    """Draws a picture as SVG, with its numbers in a comment; makes its folder."""
    with mpl.rc_context({"svg.hashsalt": "robustforge"}), drawing(9, 0.9 + 0.7 * len(bars.groups)) as figure:
        axes = figure.subplots()
        for place, numbers in enumerate(bars.groups.values()):
            for k, (label, color, value) in enumerate(zip(bars.kinds, _COLORS, numbers, strict=True)):
                height = place + 0.27 * (k - 1)
                axes.barh(height, value or 0, 0.25, color=color, label=label if place == 0 else None)
                words = MISSING if value is None else f"{value:.1f}"
                axes.text((value or 0) + 1, height, words, va="center", fontsize=7)
        axes.set_yticks(range(len(bars.groups)), [_wrapped(label) for label in bars.groups], fontsize=7)
        axes.margins(y=0.01)
        axes.invert_yaxis()
        axes.set_xlim(0, 108)
        axes.set_xlabel("percent")
        axes.set_title(bars.title)
        figure.legend(loc="outside upper center", ncol=3, fontsize=7)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="svg", metadata={"Date": None})
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("<svg ", f"{_MARK}{bars.text} -->\n<svg ", 1), encoding="utf-8")


def _wrapped(label: str) -> str:
    return "\n".join(fill(line, _WIDEST) for line in label.splitlines())


def _rounded(*values: float | None) -> list[float | None]:
    return [None if value is None else round(value, 2) for value in values]
