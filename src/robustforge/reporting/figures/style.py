"""One look for all figures: quiet axes, colors that color-blind readers can tell apart, no display needed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from robustforge.reporting.text import shortened

Arrays = Mapping[str, NDArray[Any]]

# Okabe and Ito's palette without its yellow, which white paper swallows
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#404040")
# what a line or point means is the same color in every figure
CLEAN_COLOR, MAIN_COLOR, WORST_COLOR, STRONGEST_COLOR = PALETTE[2], PALETTE[0], PALETTE[1], PALETTE[3]
INK, MUTED, RULE, PAPER = "#222222", "#6b6b6b", "#e3e3e3", "#ffffff"
TIP = "tip "  # begins the gid of an artist that has a tooltip in the report
MOST_LINES = 6  # in one panel
MARKERS = "os^Dv<>P"
LINES = ("-", "--", ":", "-.")

_LOOK: Any = {
    "font.size": 9.0,
    "axes.titlesize": 10.0,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "text.color": INK,
    "text.parse_math": False,  # a name with dollar signs is a name
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 8.0,
    "lines.linewidth": 1.6,
    "lines.markersize": 4.0,
}


@contextmanager
def drawing(width: float, height: float, margins: tuple[float, ...] | None = None) -> Iterator[Figure]:
    """A figure of that size in inches. Made without pyplot, so that nothing global is left behind.

    Args:
        width: inches.
        height: inches.
        margins: where the only panel begins and ends (left, bottom, right, top, as shares of the figure); much quicker
            than the layout that looks at all texts, which None asks for.
    """
    with mpl.rc_context(_LOOK):
        figure = Figure(figsize=(width, height), layout=None if margins else "constrained")
        if margins:
            left, bottom, right, top = margins
            figure.subplots_adjust(left, bottom, right, top)
        FigureCanvasAgg(figure)
        yield figure


def save(figure: Figure, path: str | Path) -> Path:
    """Writes the PNG and makes its folder. Call it inside ``drawing``."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    return path


def color(position: int) -> str:
    """The color of the n-th thing; they repeat after seven."""
    return PALETTE[position % len(PALETTE)]


def tip(artist: Artist, words: str) -> None:
    """Gives an artist a tooltip, which the report shows and a PNG leaves out."""
    artist.set_gid(TIP + words)


def beside(axes: Axes, words: str, point: tuple[float, float], side: int) -> None:
    """Writes a number right (``side`` 1) or left (-1) of a point in data units, clear of its marker."""
    align = "left" if side > 0 else "right"
    axes.annotate(words, point, (6 * side, 0), textcoords="offset points", va="center", ha=align, fontsize=8)


def _folded(words: str) -> str:
    return "\n".join(shortened(line, 34) for line in words.split("\n"))


def side_labels(axes: Axes, labels: Sequence[tuple[float, str, str]], height: float) -> None:
    """Writes words to the right of a panel beside the ends of its lines, moved apart where they would meet.

    Args:
        axes: with its final limits.
        labels: (height in data units, words, color) a line.
        height: of the panel in inches, about.
    """
    points = axes.transAxes.inverted().transform(
        axes.transData.transform([(axes.get_xlim()[1], y) for y, _, _ in labels])
    )
    ordered = sorted(zip(points[:, 1].clip(0, 1), labels, strict=True), key=lambda item: float(item[0]))
    halves = [(0.02 + 0.065 * (1 + words.count("\n"))) / height for _, (_, words, _) in ordered]
    places: list[float] = []
    for k, (at, _) in enumerate(ordered):
        places.append(max(float(at), places[-1] + halves[k - 1] + halves[k]) if places else float(at))
    upper = 1.0
    for k in reversed(range(len(places))):
        places[k] = min(places[k], upper)
        upper = places[k] - halves[k] - halves[k - 1]
    for at, (_, (_, words, shade)) in zip(places, ordered, strict=True):
        axes.text(1.02, at, _folded(words), transform=axes.transAxes, color=shade, va="center", fontsize=8)
