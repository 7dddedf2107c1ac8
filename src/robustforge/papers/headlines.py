"""One number of each paper: what is claimed, what its own protocol gives here, and what an adapted attack leaves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from robustforge.papers.compared import ComparedCell
from robustforge.papers.evidence import USUAL, cells_of, evidence_path, read_evidence
from robustforge.papers.parsing import parse
from robustforge.papers.printed import load_paper_table, paper_row, paper_value


@dataclass(frozen=True)
class Headline:
    """One number of one paper.

    Attributes:
        method: its folder.
        name: in words.
        claim: what the number is.
        table: ``<method>/<table>`` that has ours.
        row: label of its row there.
        column: label of its column.
        printed: where the paper's number is: ``table``, ``row``, ``key``, ``index`` and ``scale``; with ``rest`` it is
            what the printed one leaves of 100.
        adapted_row: label of the row with the adapted attack, if another one.
        adapted_column: label of its column, if another one.
        adapted_rest: whether the adapted number is what the cell leaves of 100.
        profile: of the table.
    """

    method: str
    name: str
    claim: str
    table: str
    row: str
    column: str
    printed: Mapping[str, Any]
    adapted_row: str | None = None
    adapted_column: str | None = None
    adapted_rest: bool = False
    profile: str = USUAL

    @property
    def paper(self) -> float | None:
        """The printed number, in percent."""
        row = paper_row(load_paper_table(self.printed["table"]), self.printed["row"])
        value = paper_value(row, self.printed["key"], self.printed.get("index"))
        if value is None:
            return None
        return 100 - value if self.printed.get("rest") else value * self.printed.get("scale", 1)


@dataclass(frozen=True)
class Beside:
    """The three numbers of a headline.

    Attributes:
        paper: printed, in percent.
        ours: under the paper's protocol, in percent; None where the table was not run.
        adapted: under the adapted attack, likewise.
        n: test images of ``ours``.
        adapted_n: test images of ``adapted``.
        violated: names of the indicators that speak against ``ours``.
        adapted_violated: likewise against ``adapted``.
    """

    paper: float | None
    ours: float | None = None
    adapted: float | None = None
    n: int = 0
    adapted_n: int = 0
    violated: tuple[str, ...] = ()
    adapted_violated: tuple[str, ...] = ()


def read_headlines() -> list[Headline]:
    """The numbers of ``headlines.yaml``."""
    text = (resources.files("robustforge") / "papers" / "headlines.yaml").read_text(encoding="utf-8")
    return [parse(Headline, given, "A headline") for given in yaml.safe_load(text)]


def beside(headline: Headline, results: Path) -> Beside:
    """The paper's number with ours from the result file."""
    path = evidence_path(results, headline.table, headline.profile)
    cells = cells_of(read_evidence(path)) if path.is_file() else []
    ours = _cell(cells, headline.row, headline.column)
    adapted = adapted_in(headline, cells, headline.adapted_row or headline.row)
    found = Beside(headline.paper)
    if ours is not None:
        found = replace(found, ours=ours.ours, n=ours.n or 0, violated=ours.violated)
    if adapted is not None:
        left, n = left_by(headline, adapted), adapted.adapted_n or 0
        found = replace(found, adapted=left, adapted_n=n, adapted_violated=adapted.adapted_violated)
    return found


def adapted_in(headline: Headline, cells: Sequence[ComparedCell], row: str) -> ComparedCell | None:
    """The cell with the adapted attack in a row of the headline's table."""
    return _cell(cells, row, headline.adapted_column or headline.column)


def left_by(headline: Headline, adapted: ComparedCell | None) -> float | None:
    """What the adapted attack of that cell leaves, in percent; of 100 what is not in the cell with ``adapted_rest``."""
    if adapted is None or adapted.adapted is None:
        return None
    return 100 - adapted.adapted if headline.adapted_rest else adapted.adapted


def _cell(cells: Sequence[ComparedCell], row: str, column: str) -> ComparedCell | None:
    return next((cell for cell in cells if (cell.row, cell.column) == (row, column)), None)
