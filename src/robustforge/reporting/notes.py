"""What a run's table says besides its numbers: footnotes of violated indicators, verdicts, differences, abstention."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from robustforge.indicators.rules import MEANING
from robustforge.indicators.verdict import ROBUST, UNAVERAGED, UNEVADED, UNTESTED
from robustforge.records.members import member_words
from robustforge.records.table import CLEAN
from robustforge.reporting.advice import meaning
from robustforge.reporting.text import MISSING, NORMS, budget, column_words, half_width, percent

Table = tuple[list[str], list[list[str]]]


class Notes:
    """A footnote for every indicator that a result violates somewhere, lettered in the order of ``MEANING``."""

    def __init__(self, result: Mapping[str, Any]) -> None:
        seen = {name for cell in (*result["cells"], *result["worst_case"]) for name in cell.get("violated", ())}
        names = [name for name in (*MEANING, UNTESTED, UNEVADED, UNAVERAGED) if name in seen]
        self.letters = {name: chr(ord("a") + place) for place, name in enumerate(names)}

    def mark(self, cell: Mapping[str, Any] | None) -> str:
        """``[a,c]``, or nothing."""
        letters = [self.letters[name] for name in (cell or {}).get("violated", ())]
        return f"[{','.join(letters)}]" if letters else ""

    def lines(self) -> list[str]:
        """One footnote a letter."""
        return [
            f"[{letter}] {name.replace('_', ' ')}: violated, {meaning(name)}" for name, letter in self.letters.items()
        ]


def statements(result: Mapping[str, Any]) -> list[str]:
    """What other code made, what answers at random, verdicts, differences between rows, ensembles, what is left out."""
    lines = made_by_other_code(result)
    lines += [
        f"{system} answers at random: use the surface eot. Its numbers hold for these draws, which go by the batch and "
        "by the number of processes."
        for system in result.get("random_systems", ())
    ]
    for cell in result["worst_case"]:
        if cell["system"] != result["defense"] or cell.get("verdict") is None:
            continue
        number = f"{percent(cell['accuracy'], cell['n'])} {half_width(cell['interval'], cell['n'])}"
        place = f"{cell['system']}, {_place(cell)}"
        if cell["verdict"] == ROBUST:
            lines.append(f"{place}: robust accuracy {number}.")
        else:
            reasons = ", ".join(name.replace("_", " ") for name in cell["violated"])
            lines.append(f"{place}: unreliable ({reasons}); {number} is an upper bound, no robust accuracy is stated.")
    for one in result.get("comparisons", ()):
        points = f"{one['points']:+.1f} points [{one['low']:+.1f}, {one['high']:+.1f}]"
        lines.append(f"{one['first']} minus {one['second']}, {_place(one)}: {points}, {one['n']} shared images.")
    return lines + ensembles(result) + list(result.get("left_out", ()))


def ensembles(result: Mapping[str, Any]) -> list[str]:
    """A line for each ensemble of attacks: what its members broke that stood before, by which to order them."""
    return [
        f"{cell['system']}, {' '.join(column_words(cell))}, new images broken per 1,000 passes: "
        f"{member_words(cell['members'])}."
        for cell in result["cells"]
        if cell.get("members")
    ]


def made_by_other_code(result: Mapping[str, Any]) -> list[str]:
    """One sentence where stored products or measured cells were reused that another version of the package made."""
    stages = [stage["name"] for stage in result.get("stages", ()) if stage.get("other_code")]
    cells = result.get("reused_from_other_code", ())
    told = [f"the products of {', '.join(stages)}"] if stages else []
    told += [f"{len(cells)} measured cells"] if cells else []
    if not told:
        return []
    return [
        f"Made by another version of the code and reused: {' and '.join(told)}. "
        "store.made_by_other_code=remake makes them again."
    ]


def _place(cell: Mapping[str, Any]) -> str:
    rate = "" if cell.get("rate") is None else f" at {100 * cell['rate']:g} % FPR"
    if cell["attack"] == CLEAN:
        return f"clean{rate}"
    return f"worst case {NORMS.get(cell['norm'], cell['norm'])} {budget(cell['eps'], cell['norm'])}{rate}"


def abstention_table(result: Mapping[str, Any]) -> Table | None:
    """(header, rows) of the cells with a risk, or None where there is none."""
    cells = [cell for cell in result["cells"] if cell.get("abstention")]
    if not cells:
        return None
    rates = list(dict.fromkeys(rate for cell in cells for rate in cell["abstention"].get("tpr_at_fpr", ())))
    header = [
        "system",
        "input",
        "accepted correct",
        "accepted wrong",
        "rejected",
        "AURC",
        "AUROC",
        *(f"detected at {100 * float(rate):g} % FPR" for rate in rates),
    ]
    rows = []
    for cell in cells:
        one, n = cell["abstention"], cell["n"]
        shares = [f"{percent(t['percent'], n)} {half_width(t['interval'], n)}" for t in one["triple"].values()]
        found = [one.get("tpr_at_fpr", {}).get(rate) for rate in rates]
        scores = [_number(one.get("auroc"), 3), *(_number(None if v is None else 100 * v, 1) for v in found)]
        rows.append([cell["system"], " ".join(column_words(cell)), *shares, _number(100 * one["aurc"], 2), *scores])
    return header, rows


def _number(value: float | None, digits: int) -> str:
    return MISSING if value is None else f"{value:.{digits}f}"
