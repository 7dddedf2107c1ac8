"""What an evaluation found: the number, whether it can be believed, and everything behind it."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from io import StringIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from robustforge.files import atomic_write, write_json, write_text
from robustforge.indicators.verdict import ROBUST
from robustforge.records.schema import read_parquet
from robustforge.records.table import read_records
from robustforge.reporting.headline import verdict, worst_cell
from robustforge.reporting.html.files import RunFiles
from robustforge.reporting.html.page import html_page
from robustforge.reporting.result import read_result
from robustforge.reporting.tables import markdown_run, render_run

WIDTH = 120  # columns of the printed table


@dataclass(frozen=True)
class Report:
    """Printed, it is the table of the command line below the verdict.

    Attributes:
        result: the content of ``result.json``, plain data.
        records: one row a (sample, attack, surface): ``records.to_pandas()``.
    """

    result: dict[str, Any]
    records: pa.Table

    @property
    def robust_accuracy(self) -> float | None:
        """Percent of images still classified correctly under the worst of all attacks; None where that is not known.

        :attr:`verdict` says why it is None: an attack failed, or the protocol states no verdict. :attr:`upper_bound` is
        the number all the same.
        """
        cell = self._worst
        return cell["accuracy"] if cell is not None and cell.get("verdict") == ROBUST else None

    @property
    def upper_bound(self) -> float | None:
        """Percent of images that no attack broke, whatever the attacks are worth; None where nothing attacked."""
        return None if self._worst is None else self._worst["accuracy"]

    @property
    def interval(self) -> tuple[float, float] | None:
        """Wilson's 95 % interval of :attr:`upper_bound`, percent; None where nothing attacked."""
        cell = self._worst
        return None if cell is None or cell["interval"] is None else (cell["interval"][0], cell["interval"][1])

    @property
    def clean_accuracy(self) -> float | None:
        """Percent of the clean images classified correctly (and accepted)."""
        of = self.result["defense"], "clean"
        cells = [cell for cell in self.result["cells"] if (cell["system"], cell["attack"]) == of]
        return cells[0]["accuracy"] if cells else None

    @property
    def reliable(self) -> bool:
        """Whether a robust accuracy is stated."""
        return self.robust_accuracy is not None

    @property
    def verdict(self) -> str:
        """One sentence: the robust accuracy, or why none is stated."""
        return verdict(self.result)

    @property
    def indicators(self) -> list[dict[str, Any]]:
        """What was looked at: ``name``, ``violated``, ``value``, ``threshold``, ``n`` and ``evidence`` of each."""
        return [] if self._worst is None else list(self._worst["indicators"])

    @property
    def _worst(self) -> dict[str, Any] | None:
        """The worst case that is the result: of the defense, at the last budget and the first rate."""
        return worst_cell(self.result)

    def __str__(self) -> str:
        text = StringIO()
        Console(file=text, width=WIDTH, color_system=None).print(render_run(self.result))
        return f"{self.verdict}\n\n{text.getvalue().rstrip()}"

    def __repr__(self) -> str:
        return f"Report({self.result['name']}: {self.verdict})"

    def _repr_html_(self) -> str:
        """In a notebook: the page in a frame of its own, so that neither styles the other."""
        frame = "width:100%;height:44rem;border:1px solid #ccc;border-radius:8px"
        return f'<iframe sandbox="allow-scripts" style="{frame}" srcdoc="{escape(self._page())}"></iframe>'

    def save(self, folder: str | Path) -> Path:
        """Writes ``result.json``, ``result.md``, ``records.parquet`` and ``report.html``; returns the folder."""
        folder = Path(folder)
        write_json(folder / "result.json", self.result)
        write_text(folder / "result.md", markdown_run(self.result))
        with atomic_write(folder / "records.parquet") as temporary:
            pq.write_table(self.records, temporary)
        self.to_html(folder / "report.html")
        return folder

    def to_html(self, path: str | Path) -> Path:
        """Writes one HTML file that needs no other; returns its path."""
        return write_text(path, self._page())

    def _page(self) -> str:
        return html_page(RunFiles(str(self.result["name"]), self.result, read_records(self.records)))

    @classmethod
    def load(cls, folder: str | Path) -> Report:
        """Reads what :meth:`save`, or a run of the command line, wrote into ``folder``."""
        folder = Path(folder)
        return cls(read_result(folder), read_parquet(folder / "records.parquet"))
