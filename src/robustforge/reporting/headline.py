"""Which numbers of a result are the ones to look at first, and the verdict in a sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from robustforge.records.summary import WORST
from robustforge.records.table import CLEAN
from robustforge.reporting.notes import statements
from robustforge.reporting.text import NORMS, budget, half_width, percent

Cell = Mapping[str, Any]
ROWS = {  # what the other rows of a table are
    "undefended": "the undefended classifier",
    "selector": "the defense's own selector, which is plain adversarial training",
    "baseline": "the baseline",
}

IMAGES = {"test": "", "calibration": " on held-out training images", "train": " on training images"}


def worst_cell(result: Mapping[str, Any], system: str | None = None) -> dict[str, Any] | None:
    """The worst case that is the result: of the defense, at the last budget and the first rate; None unattacked.

    Args:
        result: content of ``result.json``.
        system: another row's, at the same budget.
    """
    of = result.get("objective_of")
    name = result["defense"] if system is None else system
    cells = [cell for cell in result["worst_case"] if cell["system"] == name]
    if of is not None and of["attack"] == WORST:
        cells = [
            c for c in cells if (c["norm"], c["eps"]) == (of["norm"], of["eps"]) and c["rate"] in (None, of["rate"])
        ]
    return cells[-1] if cells else None


def clean_cell(
    result: Mapping[str, Any], system: str | None = None, rate: float | None = None
) -> dict[str, Any] | None:
    """The clean accuracy of the defense or another row, at that rate where the row has it."""
    name = result["defense"] if system is None else system
    cells = [cell for cell in result["cells"] if (cell["system"], cell["attack"]) == (name, CLEAN)]
    return next((cell for cell in cells if cell["rate"] == rate), cells[0] if cells else None)


def attacks_at(result: Mapping[str, Any], worst: Cell) -> list[dict[str, Any]]:
    """The attacks behind a worst case, the strongest first."""
    place = ("system", "norm", "eps", "rate")
    cells = [c for c in result["cells"] if c["attack"] != CLEAN and all(c[key] == worst[key] for key in place)]
    return sorted((c for c in cells if c["accuracy"] is not None), key=lambda cell: cell["accuracy"])


def main_attack(result: Mapping[str, Any], worst: Cell) -> dict[str, Any] | None:
    """The run's own attack end to end; PGD where the result does not tell, and the strongest where that is missing."""
    cells = attacks_at(result, worst)
    wanted = (result.get("main_attack") or "pgd", "end_to_end")
    return next((c for c in cells if (c["attack"], c["surface"]) == wanted), cells[0] if cells else None)


def verdict(result: Mapping[str, Any]) -> str:
    """One sentence: the robust accuracy, or why none is stated."""
    worst = worst_cell(result)
    if worst is None:
        return "No attack was run, so that nothing is known of its robustness."
    if worst.get("verdict") is None:
        return (
            f"The protocol {result['protocol']} states no verdict: use protocol='standard' for a plain "
            "classifier, 'adaptive' or 'full' for a defense."
        )
    alone = {"worst_case": [worst], "comparisons": [], "stages": [], "random_systems": [], "reused_from_other_code": []}
    return statements({**result, **alone})[0]


def name_of(result: Mapping[str, Any]) -> str:
    """Of a run, with the images where they are not the test images: such numbers are for choices, and no results."""
    split = str(result.get("split", "test"))
    return str(result["name"]) + IMAGES.get(split, f" on the split {split}")


def title(result: Mapping[str, Any]) -> str:
    """The verdict as a figure's title: name, number, budget, and whether it is more than an upper bound."""
    worst = worst_cell(result)
    if worst is None:
        clean = clean_cell(result)
        return f"{name_of(result)}: " + (
            "nothing recorded" if clean is None else f"clean {number(clean)}, not attacked"
        )
    return f"{name_of(result)}: {number(worst)} at {place(worst)}\n{standing(worst)}"


def standing(worst: Cell) -> str:
    """What the number of a worst case is."""
    if worst.get("verdict") is None:
        return "an upper bound of its robust accuracy"
    if worst["violated"]:
        return "unreliable: " + ", ".join(name.replace("_", " ") for name in worst["violated"])
    return "robust accuracy: no indicator speaks against it"


def number(cell: Cell) -> str:
    """``66.8 ± 3.2 %``."""
    if cell["accuracy"] is None:
        return "no number"
    half = half_width(cell["interval"], cell["n"]).removeprefix("±")
    return f"{percent(cell['accuracy'], cell['n'])} ± {half} %"


def place(cell: Cell) -> str:
    """``L∞ 8/255``, with the false-positive rate where there is one."""
    rate = "" if cell.get("rate") is None else f", {100 * cell['rate']:g} % false positives"
    return f"{NORMS.get(cell['norm'], cell['norm'])} {budget(cell['eps'], cell['norm'])}{rate}"


def closing(result: Mapping[str, Any]) -> str:
    """One sentence on what the defense adds to the other rows in the worst case; empty without any.

    The other row that comes closest is first, because the defense must beat that one.
    """
    worst = worst_cell(result)
    if worst is None or worst["accuracy"] is None:
        return ""
    at = [
        one
        for one in result.get("comparisons", ())
        if (one["attack"], one["norm"], one["eps"]) == (WORST, worst["norm"], worst["eps"])
        and one["first"] == result["defense"]
        and one.get("rate") in (None, worst["rate"])
    ]
    parts = []
    for one in sorted(at, key=lambda one: float(one["points"])):
        other = worst_cell(result, one["second"])
        theirs = "" if other is None else f"{percent(other['accuracy'], other['n'])} % of "
        points = f"{one['points']:+.1f} points [{one['low']:+.1f}, {one['high']:+.1f}]"
        parts.append(f"against {theirs}{ROWS.get(one['second'], one['second'])}: {points}")
    if not parts:
        return ""
    mine = f"{percent(worst['accuracy'], worst['n'])} % in the worst case at {place(worst)}"
    return f"What {result['defense']} adds: {mine}, {'; '.join(parts)}."
