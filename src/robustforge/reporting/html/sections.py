"""The numbers of one run as the page shows them: plain values, no markup."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from robustforge import pace
from robustforge.indicators.evidence import kind_of
from robustforge.indicators.verdict import ROBUST
from robustforge.records.contributions import by_class, contributions
from robustforge.records.summary import WORST
from robustforge.records.table import CLEAN, CellKey, Records, same_eps
from robustforge.reporting.advice import advice, meaning
from robustforge.reporting.headline import attacks_at, clean_cell, number, place, verdict, worst_cell
from robustforge.reporting.html.files import RunFiles
from robustforge.reporting.text import MISSING, NORMS, budget, half_width, percent

View = dict[str, Any]
KINDS = {
    "clean": "clean",
    "iterative": "iterated gradients",
    "one_step": "one gradient step",
    "query": "black box",
    "transfer": "transfer",
    "noise": "noise",
}


def headline(run: RunFiles) -> View:
    """The verdict: its state, the number and the sentence; and the tiles beside it."""
    result, worst = run.result, worst_cell(run.result)
    if worst is None:
        state = "untested"
    elif worst.get("verdict") is None:
        state = "bound"
    else:
        state = "robust" if worst["verdict"] == ROBUST else "unreliable"
    words = {
        "robust": "robust accuracy",
        "unreliable": "unreliable",
        "bound": "upper bound",
        "untested": "not attacked",
    }
    return {
        "state": state,
        "badge": words[state],
        "number": None if worst is None else number(worst),
        "place": "" if worst is None else place(worst),
        "sentence": _sentence(result, state, worst),
        "tiles": list(_tiles(result, worst)),
        "reasons": [] if worst is None or state != "unreliable" else [reason(name) for name in worst["violated"]],
    }


def _sentence(result: Mapping[str, Any], state: str, worst: Mapping[str, Any] | None) -> str:
    if state != "bound" or worst is None:
        return verdict(result)
    bound = f"The recorded attacks leave {number(worst)} of the images: an upper bound of its robust accuracy."
    return f"{bound} {verdict(result)}"


def reason(name: str) -> View:
    """A reason for disbelief, with its meaning and what to do next."""
    return {"name": name.replace("_", " "), "meaning": meaning(name), "advice": advice(name)}


def _tiles(result: Mapping[str, Any], worst: Mapping[str, Any] | None) -> Iterable[View]:
    clean = clean_cell(result, rate=None if worst is None else worst["rate"])
    if clean is not None:
        yield {"label": "clean accuracy", "value": number(clean), "note": f"{clean['n']} images"}
    if worst is not None:
        yield {"label": f"worst case, {place(worst)}", "value": number(worst), "note": "per image, over all attacks"}
        strongest = next(iter(attacks_at(result, worst)), None)
        if strongest is not None:
            note = f"{strongest['attack']} on {strongest['surface']}".replace("_", " ")
            yield {"label": "strongest single attack", "value": number(strongest), "note": note}
        bare = worst_cell(result, "undefended")
        if bare is not None and result["defense"] != "undefended":
            yield {"label": "undefended, worst case", "value": number(bare), "note": "the same attacks on no defense"}
        passes, note = f"{worst['backwards']:.0f}", f"and {worst['forwards']:.0f} forward passes"
        yield {"label": "gradients for each image", "value": passes, "note": note}
    if result.get("seconds") is not None:
        yield {"label": "time of the run", "value": duration(result["seconds"]), "note": f"seed {result['seed']}"}


def duration(seconds: float | None) -> str:
    """``41 s``, ``3.5 min``, ``2.1 h``; a dash where it is not known."""
    return MISSING if seconds is None else pace.duration(seconds)


def kinds(records: Records | None) -> dict[CellKey, str]:
    """What kind of attack each cell is, in words."""
    cells = {} if records is None else records.cells
    return {key: KINDS[kind_of(key, part)] for key, part in cells.items() if not key.check}


def kind_of_cell(cell: Mapping[str, Any], known: Mapping[CellKey, str]) -> str:
    """The same for a cell of ``result.json``; a dash where the records do not tell."""
    if cell["attack"] in (CLEAN, WORST):
        return "clean" if cell["attack"] == CLEAN else "worst case"
    for key, words in known.items():
        same = (key.system, key.attack, key.surface, key.norm, key.rate)
        if same == tuple(cell[name] for name in ("system", "attack", "surface", "norm", "rate")) and _eps(cell, key):
            return words
    return MISSING


def _eps(cell: Mapping[str, Any], key: CellKey) -> bool:
    return key.eps == float("inf") if cell["eps"] is None else same_eps(key.eps, cell["eps"])


def table_rows(run: RunFiles) -> list[View]:
    """Every number of the result: the defense before the other rows, its worst cases first, then by strength."""
    known = kinds(run.records)
    rows = [_row(cell, kind_of_cell(cell, known)) for cell in (*run.result["worst_case"], *run.result["cells"])]
    names = [run.result["defense"], *(row["system"] for row in rows)]

    def rank(row: View) -> tuple[int, int, float]:
        return names.index(row["system"]), row["clean"] - row["worst"], 101.0 if row["value"] is None else row["value"]

    return sorted(rows, key=rank)


def _row(cell: Mapping[str, Any], kind: str) -> View:
    clean, worst = cell["attack"] == CLEAN, cell["attack"] == WORST
    return {
        "system": cell["system"],
        "attack": cell["attack"].replace("_", " "),
        "surface": "" if clean or worst else cell["surface"].replace("_", " "),
        "kind": kind,
        "budget": "none" if clean else f"{NORMS.get(cell['norm'], cell['norm'])} {budget(cell['eps'], cell['norm'])}",
        "eps": 0.0 if clean else 1e9 if cell["eps"] is None else cell["eps"],
        "rate": "" if cell["rate"] is None else f"{100 * cell['rate']:g} %",
        "value": cell["accuracy"],
        "accuracy": percent(cell["accuracy"], cell["n"]),
        "half": "" if cell["accuracy"] is None else half_width(cell["interval"], cell["n"]),
        "interval": cell["interval"],
        "n": cell["n"],
        "rejected": cell["rejected"],
        "forwards": cell["forwards"],
        "backwards": cell["backwards"],
        "seconds": cell["seconds"],
        "violated": [name.replace("_", " ") for name in cell.get("violated", ())],
        "worst": worst,
        "clean": clean,
    }


def added_rows(run: RunFiles) -> list[View]:
    """Each attack's part in the worst case of the headline; empty without records."""
    worst = worst_cell(run.result)
    if worst is None or run.records is None:
        return []
    eps = float("inf") if worst["eps"] is None else worst["eps"]
    known = kinds(run.records)
    cells = {(c["attack"], c["surface"]): c for c in (*attacks_at(run.result, worst),)}
    found = contributions(run.records, worst["system"], worst["norm"], eps, worst["rate"])
    most = max((one.added for one in found), default=0) or 1
    return [
        {
            **asdict(one),
            "share": 100 * one.added / most,
            "attack": one.key.attack.replace("_", " "),
            "surface": "" if one.key.attack == CLEAN else one.key.surface.replace("_", " "),
            "kind": known.get(one.key, MISSING),
            "cell": cells.get((one.key.attack, one.key.surface)),
            "clean": one.key.attack == CLEAN,
        }
        for one in found
    ]


def left_by_checks(run: RunFiles, added: Sequence[View]) -> float:
    """Percent of the images that the attacks leave and only a check, with more restarts or steps, breaks."""
    worst = worst_cell(run.result)
    return max(0.0, added[-1]["left"] - worst["accuracy"]) if added and worst is not None else 0.0


def indicator_rows(run: RunFiles) -> list[View]:
    """What was looked at for the headline's worst case, the violated ones first."""
    worst = worst_cell(run.result)
    found = [] if worst is None else worst.get("indicators") or []
    rows = [
        {**one, **reason(one["name"]), "violated": bool(one["violated"]), "by": (one.get("by") or "").replace("_", " ")}
        for one in found
    ]
    return sorted(rows, key=lambda row: not row["violated"])


def single_violations(run: RunFiles) -> list[View]:
    """Indicators that single attacks of the table violate."""
    return [
        {
            "system": cell["system"],
            "attack": f"{cell['attack']} on {cell['surface']}".replace("_", " "),
            "place": place(cell),
            "value": one["value"],
            "by": one["by"].replace("_", " "),
            **reason(one["name"]),
        }
        for cell in run.result["cells"]
        for one in cell.get("indicators") or ()
        if one["violated"]
    ]


def class_rows(run: RunFiles) -> list[View]:
    """Accuracy by class, the weakest first; empty without records or attacks, or above 100 classes."""
    worst = worst_cell(run.result)
    if worst is None or run.records is None:
        return []
    eps = float("inf") if worst["eps"] is None else worst["eps"]
    rows = by_class(run.records, worst["system"], worst["norm"], eps, worst["rate"])
    return sorted((asdict(row) for row in rows), key=lambda row: row["worst"]) if len(rows) <= 100 else []


def cost_rows(run: RunFiles) -> list[View]:
    """Where the time went: stages, and attacks by system."""
    rows = [
        {
            "what": f"training: {stage['name']}",
            "seconds": stage["seconds"],
            "note": "taken from the store" if stage["reused"] else "",
        }
        for stage in run.result.get("stages", ())
    ]
    spent: dict[str, float] = {}
    for cell in (*run.result["cells"], *run.result.get("checks", ())):
        if cell["seconds"] is not None:
            what = f"checks of {cell['system']}" if cell["check"] else f"{cell['attack']} on {cell['system']}"
            spent[what.replace("_", " ")] = spent.get(what.replace("_", " "), 0.0) + cell["seconds"]
    rows += [{"what": what, "seconds": seconds, "note": ""} for what, seconds in spent.items()]
    most = max((row["seconds"] for row in rows), default=0) or 1
    return [{**row, "words": duration(row["seconds"]), "share": 100 * row["seconds"] / most} for row in rows]
