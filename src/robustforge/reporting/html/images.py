"""Images of a run as the page shows them: small PNGs inside the page, with what the system said."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.image import imsave
from numpy.typing import NDArray

from robustforge.optional import optional
from robustforge.reporting.figures.gallery import CHANGES, change_range, changes, visible
from robustforge.reporting.figures.style import Arrays
from robustforge.reporting.headline import worst_cell
from robustforge.reporting.html.files import RunFiles
from robustforge.reporting.text import budget

MOST = 16  # images of one gallery
LONGEST = 96  # pixels of a side that are kept
LARGEST_PICTURE = 400_000  # bytes of a PNG that the page takes over
OUTCOMES = {"held": "held", "fooled": "fooled", "rejected": "rejected", "wrong": "wrong when clean"}


def galleries(run: RunFiles) -> list[dict[str, Any]]:
    """Every gallery of a run: its title and its cases."""
    found = []
    for name, arrays in run.arrays.items():
        if str(arrays["kind"]) == "gallery":
            with optional(f"images of {name}"):
                found.append(_gallery(arrays, threshold(run)))
    return found


def pictures(run: RunFiles) -> list[dict[str, str]]:
    """The run's other pictures, as they are."""
    return [
        {"name": name.replace("_", " "), "src": _uri(content)}
        for name, content in run.pictures.items()
        if str(run.arrays[name]["kind"]) != "gallery" and len(content) <= LARGEST_PICTURE
    ]


def threshold(run: RunFiles) -> float | None:
    """Above which risk the defense rejects, at the rate of the headline; None where it accepts everything."""
    worst = worst_cell(run.result)
    rate = None if worst is None else worst["rate"]
    for key, part in ({} if run.records is None else run.records.cells).items():
        if (key.system, key.rate) == (run.result["defense"], rate) and np.isfinite(part["threshold"][0]):
            return float(part["threshold"][0])
    return None


def _gallery(arrays: Arrays, limit: float | None) -> dict[str, Any]:
    change, span = changes(arrays["attacked"] - arrays["clean"]), change_range(arrays)
    count = min(MOST, len(arrays["label"]))
    cases = [_case(arrays, i, change[i], span, limit) for i in range(count)]
    return {
        "title": str(arrays.get("title", "")).replace("_", " "),
        "span": budget(span),
        "cases": cases,
        "outcomes": {key: words for key, words in OUTCOMES.items() if any(case["outcome"] == key for case in cases)},
        "groups": list(dict.fromkeys(case["group"] for case in cases if case["group"])),
    }


def _case(arrays: Arrays, i: int, change: NDArray[Any], span: float, limit: float | None) -> dict[str, Any]:
    label, answer = int(arrays["label"][i]), int(arrays["prediction"][i])
    before = int(arrays["clean_prediction"][i]) if "clean_prediction" in arrays else None
    risk = float(arrays["risk"][i]) if "risk" in arrays else None
    accepted = None if risk is None or limit is None else risk <= limit
    if before is not None and before != label:
        outcome = "wrong"
    elif accepted is False:
        outcome = "rejected"
    else:
        outcome = "held" if answer == label else "fooled"
    images = [
        ("clean", _image(arrays["clean"][i])),
        ("attacked", _image(arrays["attacked"][i])),
        ("change", _change(change, span)),
    ]
    if "rebuilt" in arrays:
        images.append(("rebuilt", _image(arrays["rebuilt"][i])))
    group = ("worst" if i < int(arrays["worst"]) else "typical") if "worst" in arrays and int(arrays["worst"]) else ""
    number = int(arrays["index"][i]) if "index" in arrays else i
    return {
        "images": [{"name": name, "src": src} for name, src in images],
        "label": label,
        "before": before,
        "answer": answer,
        "risk": None if risk is None else f"{risk:.3g}",
        "accepted": accepted,
        "outcome": outcome,
        "words": OUTCOMES[outcome],
        "group": group,
        "number": number,
    }


def _image(image: NDArray[Any]) -> str:
    return _png(visible(_smaller(image)))


def _change(change: NDArray[Any], span: float) -> str:
    return _png(colormaps[CHANGES](np.clip(0.5 + _smaller(change) / (2 * span), 0, 1))[..., :3])


def _smaller(image: NDArray[Any]) -> NDArray[Any]:
    """(..., H, W) with the longest side at most ``LONGEST``, by leaving out rows and columns."""
    step = -(-max(image.shape[-2:]) // LONGEST)
    return image[..., ::step, ::step]


def _png(pixels: NDArray[Any]) -> str:
    out = io.BytesIO()
    imsave(out, np.nan_to_num(pixels), cmap="gray", vmin=0, vmax=1, format="png")
    return _uri(out.getvalue())


def _uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()
