"""What a system that may reject does with its inputs: shares at the recorded thresholds, and at 1 % and 5 %."""

from __future__ import annotations

from typing import Any

import numpy as np

from robustforge.records.abstention import FALSE_POSITIVE_RATES, aurc, auroc, changed_risks
from robustforge.records.table import CLEAN, Records
from robustforge.reporting.figures.abstention_curves import shown_cells
from robustforge.reporting.html.files import RunFiles

Row = dict[str, Any]
EVALUATED = "evaluated"


def rejection_rows(run: RunFiles) -> list[Row]:
    """One row a shown cell and rate: accepted correct, accepted wrong, rejected (percent); AURC and AUROC.

    Rates that were evaluated have the thresholds of the evaluation, which attacks knew. For the others of 1 % and 5 %
    the threshold is taken from the clean test images, and no attack knew it.
    """
    if run.records is None:
        return []
    lines = shown_cells(run.records, run.result)
    clean = next((part for words, _, part in lines if words == "clean"), None)
    own = run.result["thresholds"]
    rates: dict[float | None, str] = {
        float(one["rate"]): EVALUATED for one in own if one["system"] == run.result["defense"]
    }
    if not rates and lines and np.isfinite(lines[0][2]["threshold"][0]):
        rates[None] = EVALUATED  # thresholds that belong to the defense
    if clean is not None:
        rates |= {rate: "of the test images" for rate in FALSE_POSITIVE_RATES if rate not in rates}
    return [
        row
        for rate, how in sorted(rates.items(), key=lambda item: item[0] or 0.0)
        for words, _, part in lines
        if (row := _row(run.records, rate, how, words, part, clean)) is not None
    ]


def _row(
    records: Records, rate: float | None, how: str, words: str, part: Records, clean: Records | None
) -> Row | None:
    """The row of a cell at a rate; None where that rate was evaluated without this attack."""
    if how == EVALUATED:
        mine = next(iter(part.cells))._replace(rate=rate)
        found = records.cells.get(mine)
        if found is None:
            return None
        part, accepted = found, found["accepted"]
        own = (mine.system, CLEAN, rate)
        clean = next((p for k, p in records.cells.items() if (k.system, k.attack, k.rate) == own), clean)
    else:
        assert clean is not None
        assert rate is not None
        accepted = part["risk"] <= np.sort(clean["risk"])[len(clean) - 1 - int(rate * len(clean) + 1e-9)]
    right = part["prediction"] == part["label"]
    positive = changed_risks(part)
    attacked = part["linf"].max() > 0
    return {
        "input": words.replace("\n", " "),
        "rate": "its own" if rate is None else f"{100 * rate:g} %",
        "how": how,
        "correct": 100 * float((accepted & right).mean()),
        "wrong": 100 * float((accepted & ~right).mean()),
        "rejected": 100 * float((~accepted).mean()),
        "aurc": 100 * aurc(part["risk"], ~right),
        "auroc": auroc(clean["risk"], positive) if clean is not None and attacked and len(positive) else None,
    }
