"""Images of a run as the page shows them: small PNGs inside the page, with what the system said."""

from __future__ import annotations

import base64
import io
import re
from typing import Any

import numpy as np
from matplotlib.image import imsave
from numpy.typing import NDArray

from robustforge.optional import optional
from robustforge.reporting.cases import OUTCOMES, Case, cases_of, threshold
from robustforge.reporting.figures.gallery import change_range
from robustforge.reporting.figures.style import Arrays
from robustforge.reporting.html.files import RunFiles
from robustforge.reporting.text import NORMS, budget

MOST = 16  # images of one gallery
LONGEST = 96  # pixels of a side that are kept
LARGEST_PICTURE = 400_000  # bytes of a PNG that the page takes over


def galleries(run: RunFiles) -> list[dict[str, Any]]:
    """Every gallery of a run: its title and its cases."""
    found = []
    for name, arrays in run.arrays.items():
        if str(arrays["kind"]) == "gallery":
            with optional(f"images of {name}"):
                found.append(_gallery(arrays, threshold(run.result, run.records)))
    return found


def pictures(run: RunFiles) -> list[dict[str, str]]:
    """The run's other pictures, as they are."""
    return [
        {"name": name.replace("_", " "), "src": _uri(content)}
        for name, content in run.pictures.items()
        if str(run.arrays[name]["kind"]) != "gallery" and len(content) <= LARGEST_PICTURE
    ]


def _gallery(arrays: Arrays, limit: float | None) -> dict[str, Any]:
    cases = cases_of(arrays, limit, MOST, LONGEST)
    return {
        "title": _title(str(arrays.get("title", ""))),
        "span": budget(change_range(arrays)),
        "cases": [_shown(case) for case in cases],
        "outcomes": {key: words for key, words in OUTCOMES.items() if any(case.outcome == key for case in cases)},
        "groups": list(dict.fromkeys(case.group for case in cases if case.group)),
    }


def _title(words: str) -> str:
    """Attack, surface and budget as people write them."""
    for key, norm in NORMS.items():
        words = re.sub(rf"\b{key}\b", norm, words)
    return words.replace("_", " ")


def _shown(case: Case) -> dict[str, Any]:
    return {
        **vars(case),
        "images": [{"name": name, "src": _png(pixels)} for name, pixels in case.images.items()],
        "risk": None if case.risk is None else f"{case.risk:.3g}",
        "words": OUTCOMES[case.outcome],
    }


def _png(pixels: NDArray[Any]) -> str:
    out = io.BytesIO()
    imsave(out, np.nan_to_num(pixels), cmap="gray", vmin=0, vmax=1, format="png")
    return _uri(out.getvalue())


def _uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()
