"""matplotlib's figures as SVG inside a page: the page's font and colors, and tooltips."""

from __future__ import annotations

import io
import re
from collections.abc import Callable

import matplotlib as mpl
from markupsafe import Markup, escape
from matplotlib.axes import Axes

from robustforge.reporting.figures.style import INK, MUTED, PALETTE, PAPER, RULE, TIP, drawing

# colors of the PNG figures -> variables of the page's style sheet, which differ between light and dark
_VARIABLES = {shade.lower(): f"var(--p{k})" for k, shade in enumerate(PALETTE)}
_VARIABLES |= {INK: "var(--ink)", MUTED: "var(--muted)", RULE: "var(--rule)", PAPER: "var(--card)"}
_COLOR = re.compile(r"(fill|stroke): (#[0-9a-f]{6})\b")
_DROPPED = re.compile(r"<\?xml.*?\?>|<!DOCTYPE.*?>|<metadata>.*?</metadata>|<!--.*?-->", re.DOTALL)
_NAMED = re.compile(r"\bid=\"([^\"]*)\"")
_PLACED = re.compile(r"\b(?:d|transform|x|y|width|height)=\"[^\"]*\"")
_NUMBERS = re.compile(r"-?\d+\.\d{3,}")


class Drawer:
    """Makes the figures of one page, in which no two elements have the same id."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(
        self,
        width: float,
        height: float,
        paint: Callable[[Axes], None],
        label: str,
        margins: tuple[float, ...] | None = None,
    ) -> Markup:
        """One panel.

        Args:
            width: in inches; of phones' width where it is to be read there (4.8).
            height: in inches.
            paint: draws on the axes.
            label: what it shows, for those who do not see it.
            margins: see :func:`robustforge.reporting.figures.style.drawing`.
        """
        self.count += 1
        with (
            drawing(width, height, margins) as figure,
            mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "robustforge"}),
        ):
            paint(figure.subplots())
            out = io.StringIO()
            figure.savefig(
                out, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type"))
            )
        return _for_page(out.getvalue(), f"f{self.count}", label)


def _for_page(svg: str, prefix: str, label: str) -> Markup:
    svg = _DROPPED.sub("", svg)
    svg = _COLOR.sub(lambda found: f"{found[1]}: {_VARIABLES.get(found[2], found[2])}", svg)
    svg = _PLACED.sub(lambda found: _NUMBERS.sub(lambda number: f"{float(number[0]):.2f}", found[0]), svg)
    svg = _NAMED.sub(lambda found: _identity(found[1], prefix), svg)
    svg = re.sub(r"url\(#", f"url(#{prefix}-", svg)
    svg = re.sub(r"xlink:href=\"#", f'xlink:href="#{prefix}-', svg)
    head = f'<svg class="figure" role="img" tabindex="0" aria-label="{escape(label)}"'
    svg = re.sub(
        r"<svg\b[^>]*?(viewBox=\"[^\"]*\")[^>]*>",
        rf'{head} \1 xmlns:xlink="http://www.w3.org/1999/xlink">',
        svg,
        count=1,
    )
    return Markup(svg.strip())


def _identity(name: str, prefix: str) -> str:
    """A tooltip where the artist has one, which matplotlib has escaped; else an id of this figure alone."""
    if name.startswith(TIP):
        return f'class="tip" data-tip="{name.removeprefix(TIP)}"'
    return f'id="{prefix}-{name}"'
