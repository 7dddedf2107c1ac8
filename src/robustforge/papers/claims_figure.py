"""The picture of the first page: what the papers print, and what an adapted attack leaves of it."""

from __future__ import annotations

import json
from pathlib import Path

from robustforge.papers.headlines import Beside, beside, read_headlines
from robustforge.reporting.figures.style import MAIN_COLOR, MUTED, WORST_COLOR, drawing

_MARK = "<!-- robustforge-data: "
_KINDS = (
    ("printed", "paper", MUTED),
    ("ours, its protocol", "ours", MAIN_COLOR),
    ("ours, adapted attack", "adapted", WORST_COLOR),
)


def data_of(results: Path) -> str:
    """All numbers that the picture shows, as one line of text."""
    return json.dumps({one.name: _numbers(beside(one, results)) for one in read_headlines()}, sort_keys=True)


def drawn_data(path: Path) -> str:
    """The numbers that a picture was drawn from; empty where there is none."""
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    return text.partition(_MARK)[2].partition(" -->")[0]


def draw(path: Path, results: Path) -> None:
    """Draws the picture as SVG, with its numbers in a comment.

    Args:
        path: of the picture; its folder is made.
        results: folder of the result files.
    """
    found = [(one, beside(one, results)) for one in read_headlines()]
    with drawing(9, 0.8 + 0.7 * len(found)) as figure:
        axes = figure.subplots()
        for place, (_, numbers) in enumerate(found):
            for k, (label, name, color) in enumerate(_KINDS):
                value = getattr(numbers, name)
                height = place + 0.27 * (k - 1)
                axes.barh(height, value or 0, 0.25, color=color, label=label if place == 0 else None)
                words = "not run" if value is None else f"{value:.1f}"
                axes.text((value or 0) + 1, height, words, va="center", fontsize=7)
        axes.set_yticks(range(len(found)), [f"{one.name}:\n{one.claim}" for one, _ in found], fontsize=7)
        axes.invert_yaxis()
        axes.set_xlim(0, 108)
        axes.set_xlabel("percent")
        figure.legend(loc="outside upper center", ncol=3, fontsize=7)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="svg", metadata={"Date": None})
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("<svg ", f"{_MARK}{data_of(results)} -->\n<svg ", 1), encoding="utf-8")


def _numbers(found: Beside) -> list[float | None]:
    return [None if value is None else round(value, 2) for value in (found.paper, found.ours, found.adapted)]
