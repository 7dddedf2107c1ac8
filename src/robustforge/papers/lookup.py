"""Which of a run's numbers belongs in a cell of a paper's table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from robustforge.papers.costs import COSTS, cost
from robustforge.papers.specification import AVERAGED, CellSpec
from robustforge.records.metrics import METRICS, RISK, measure
from robustforge.records.statistics import wilson
from robustforge.records.summary import WORST
from robustforge.records.table import CLEAN, same_eps

NOT_RUN = "not run"
COPIED = "copied from the paper"
Cell = Mapping[str, Any]  # of result.json
_BUDGET = ("norm", "eps", "rate")


@dataclass(frozen=True)
class Found:
    """A cell of ours, or the reason why there is none."""

    cell: Cell | None = None
    reason: str = ""

    @property
    def accuracy(self) -> float | None:
        """Of the cell, percent."""
        return None if self.cell is None else self.cell["accuracy"]

    @property
    def interval(self) -> tuple[float, float] | None:
        """Of the cell, percent."""
        return None if self.cell is None or self.cell["interval"] is None else tuple(self.cell["interval"])


def look_up(cell: CellSpec, results: Mapping[str, Any]) -> tuple[Found, Found, Found]:
    """(clean, paper's protocol, adapted) of one cell of one run, the last possibly of another run or attack."""
    clean, ours, adapted = _look_up_run(cell, results)
    if cell.run and (cell.adapted_run or cell.adapted_attack):
        elsewhere = replace(
            cell,
            run=(cell.adapted_run or cell.run[0],),
            attack=CLEAN if cell.attack == CLEAN else cell.adapted_attack or cell.attack,
            pool=(),
            norm=cell.norm if cell.adapted_norm is None else cell.adapted_norm,
            eps=cell.eps if cell.adapted_eps is None else cell.adapted_eps,
            paper_surface=cell.adapted,
        )
        adapted = _look_up_run(elsewhere, results)[1]
    return clean, ours, adapted


def _look_up_run(cell: CellSpec, results: Mapping[str, Any]) -> tuple[Found, Found, Found]:
    result = results.get(cell.run[0]) if cell.run else None
    if result is None or "failed" in result:
        lost = COPIED if not cell.run else NOT_RUN if result is None else f"run failed: {result['failed']}"
        return (Found(reason=lost),) * 3
    at_rate = [c for c in result["cells"] if c["system"] == cell.system and _at_rate(c, cell)]
    mine = at_rate if cell.metric in METRICS else [_measured(c, cell, result["cells"]) for c in at_rate]
    if not mine:
        return (Found(reason=f"{NOT_RUN}: no system '{cell.system}'"),) * 3
    if cell.metric in COSTS:
        spent = Found(*cost(cell.metric, result, at_rate))
        return spent, spent, spent
    clean = _one([c for c in mine if c["attack"] == CLEAN], "clean")
    if cell.attack == CLEAN and cell.metric != RISK:
        return clean, clean, clean
    if cell.metric in METRICS:
        base = results.get(cell.baseline or "") or {}
        parts = result.get("records"), base.get("records"), cell.baseline_system
        found = Found(*measure(cell.metric, cell.selection, *parts))
        return clean, found, found
    if cell.attack == WORST:
        worst = _worst(cell, result, Found(reason="give eps"))
        return clean, worst, worst
    candidates = [c for c in mine if c["attack"] == cell.attack and _in_budget(c, cell)]

    def on(surface: str) -> Found:
        return _one([c for c in candidates if c["surface"] == surface], f"{cell.attack} on {surface}")

    ours = on(cell.paper_surface)
    return clean, ours, _worst(cell, result, ours) if cell.adapted == WORST else on(cell.adapted)


def _measured(recorded: Cell, cell: CellSpec, cells: Sequence[Cell]) -> Cell:
    """The recorded cell with the wanted metric in the place of its accuracy."""
    n, clean = recorded["n"], recorded["attack"] == CLEAN
    if cell.metric == "accuracy":
        return recorded
    if cell.metric == AVERAGED:
        own = [c for c in cells if all(c.get(key) == recorded.get(key) for key in ("system", "rate"))]
        known = [c["accuracy"] for c in own if c["attack"] == CLEAN]
        return {**recorded, "accuracy": (recorded["accuracy"] + known[0]) / 2 if known else None, "interval": None}
    if cell.metric == "auroc":
        found = (recorded.get("abstention") or {}).get("auroc")
        return {**recorded, "accuracy": None if found is None else 100 * found, "interval": None}
    if cell.metric == "error":
        hits = n * (100 - recorded["accuracy"] - (recorded["rejected"] if clean else 0)) / 100
    elif cell.metric == "rejected":
        hits = n * recorded["rejected"] / 100
    else:  # recovered
        same = ("attack", "surface", "norm", "eps", "n")
        direct = [c for c in cells if c["system"] == cell.direct and all(c[key] == recorded[key] for key in same)]
        rejected = direct[0]["rejected"] if direct else 0
        # what is accepted keeps its answer: the gain over the accepted and correct was made on rejected inputs
        kept = (direct[0]["accuracy"] - (0 if clean else rejected)) if direct else 0
        n, hits = round(n * rejected / 100), n * (recorded["accuracy"] - kept) / 100 if rejected else 0
    hits = round(hits)
    return {**recorded, "accuracy": 100 * hits / n if n else None, "interval": wilson(hits, n), "n": n}


def _worst(cell: CellSpec, result: Mapping[str, Any], ours: Found) -> Found:
    """The worst case at the budget of the attack that was found, or else at the cell's own."""
    if cell.metric != "accuracy":
        return ours  # a worst case is taken over accuracies
    worst = [c for c in result["worst_case"] if c["system"] == cell.system and _at_rate(c, cell)]
    if ours.cell is not None:
        budget = [ours.cell.get(name) for name in _BUDGET]
        worst = [c for c in worst if [c.get(name) for name in _BUDGET] == budget]
    elif cell.eps is not None:
        worst = [c for c in worst if _in_budget(c, cell)]
    else:
        return ours  # neither names a budget: the worst case of another attack would be no answer
    return _one(worst, "any attack at this budget")


def _at_rate(recorded: Cell, cell: CellSpec) -> bool:
    """Whether a recorded cell is of the wanted false-positive rate; what never rejects is the same at every rate."""
    return cell.rate is None or recorded.get("rate") in (cell.rate, None)


def _in_budget(recorded: Cell, cell: CellSpec) -> bool:
    if cell.norm not in (None, recorded["norm"]):
        return False
    return cell.eps is None or (recorded["eps"] is not None and same_eps(recorded["eps"], cell.eps))


def _one(cells: Sequence[Cell], what: str) -> Found:
    if len(cells) > 1:
        return Found(reason=f"{NOT_RUN} uniquely: {what} has several budgets or rates, give norm, eps and rate")
    return Found(cells[0]) if cells else Found(reason=f"{NOT_RUN}: {what}")
