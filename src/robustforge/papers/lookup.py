"""Which of a run's numbers belongs in a cell of a paper's table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from robustforge.records.metrics import METRICS, measure
from robustforge.records.records import CLEAN, WORST, same_eps
from robustforge.records.statistics import wilson

NOT_RUN = "not run"
COPIED = "copied from the paper"


@dataclass(frozen=True)
class Found:
    """A cell of ours, or the reason why there is none."""

    cell: Mapping[str, Any] | None = None
    reason: str = ""

    @property
    def accuracy(self) -> float | None:
        """Of the cell, percent."""
        return None if self.cell is None else self.cell["accuracy"]

    @property
    def interval(self) -> tuple[float, float] | None:
        """Of the cell, percent."""
        return None if self.cell is None or self.cell["interval"] is None else tuple(self.cell["interval"])


def look_up(
    row: Mapping[str, Any], column: Mapping[str, Any], results: Mapping[str, Any], surface: str, adapted_to: str
) -> tuple[Found, Found, Found]:
    """(clean, paper's protocol, adapted) of one cell, the last possibly of another run or attack."""
    clean, ours, adapted = _look_up_run(row, column, results, surface, adapted_to)
    if row.get("run") is not None and (row.get("adapted_run") or row.get("adapted_attack")):
        attack = CLEAN if column["attack"] == CLEAN else row.get("adapted_attack", column["attack"])
        elsewhere = {**row, "run": row.get("adapted_run", row["run"])}
        changed = {
            **column,
            "attack": attack,
            "pool": (),
            **{k: row[f"adapted_{k}"] for k in ("norm", "eps") if f"adapted_{k}" in row},
        }
        adapted = _look_up_run(elsewhere, changed, results, adapted_to, adapted_to)[1]
    return clean, ours, adapted


def _look_up_run(
    row: Mapping[str, Any], column: Mapping[str, Any], results: Mapping[str, Any], surface: str, adapted_to: str
) -> tuple[Found, Found, Found]:
    result = results.get(row.get("run", ""))
    if row.get("run") is None or result is None or "failed" in result:
        lost = COPIED if row.get("run") is None else NOT_RUN if result is None else f"run failed: {result['failed']}"
        return (Found(reason=lost),) * 3
    rate = column.get("rate")
    system = column.get("system", row["system"])
    at_rate = [c for c in result["cells"] if c["system"] == system and (rate is None or c.get("rate") == rate)]
    mine = at_rate if column.get("metric") in METRICS else [_measured(c, column, result["cells"]) for c in at_rate]
    if not mine:
        return (Found(reason=f"{NOT_RUN}: no system '{system}'"),) * 3
    clean = _one([c for c in mine if c["attack"] == CLEAN], "clean")
    if column["attack"] == CLEAN:
        return clean, clean, clean
    if column.get("metric") in METRICS:
        base = results.get(column.get("baseline", row.get("baseline", ""))) or {}
        where = {**column, "system": system}
        found = Found(*measure(where, surface, result.get("records"), base.get("records")))
        return clean, found, found  # of an attack of its own where the row names one
    candidates = [c for c in mine if c["attack"] == column["attack"] and _in_budget(c, column)]
    ours = _one([c for c in candidates if c["surface"] == surface], f"{column['attack']} on {surface}")
    if adapted_to != WORST:
        return (
            clean,
            ours,
            _one([c for c in candidates if c["surface"] == adapted_to], f"{column['attack']} on {adapted_to}"),
        )
    return clean, ours, _worst(row, column, result, ours)


def _measured(
    cell: Mapping[str, Any], column: Mapping[str, Any], cells: Sequence[Mapping[str, Any]]
) -> Mapping[str, Any]:
    """The cell with the column's metric in the place of its accuracy."""
    metric, n, clean = column.get("metric", "accuracy"), cell["n"], cell["attack"] == CLEAN
    if metric == "accuracy":
        return cell
    if metric == "auroc":
        found = (cell.get("abstention") or {}).get("auroc")
        return {**cell, "accuracy": None if found is None else 100 * found, "interval": None}
    if metric == "error":
        hits = n * (100 - cell["accuracy"] - (cell["rejected"] if clean else 0)) / 100
    elif metric == "rejected":
        hits = n * cell["rejected"] / 100
    elif metric == "recovered":
        same = ("attack", "surface", "norm", "eps", "n")
        direct = [c for c in cells if c["system"] == column["direct"] and all(c[key] == cell[key] for key in same)]
        rejected = direct[0]["rejected"] if direct else 0
        # what is accepted keeps its answer: the gain over the accepted and correct was made on rejected inputs
        kept = (direct[0]["accuracy"] - (0 if clean else rejected)) if direct else 0
        n, hits = round(n * rejected / 100), n * (cell["accuracy"] - kept) / 100 if rejected else 0
    else:
        raise ValueError(f"There is no metric '{metric}': choose accuracy, error, rejected, auroc or recovered.")
    hits = round(hits)
    return {**cell, "accuracy": 100 * hits / n if n else None, "interval": wilson(hits, n), "n": n}


def _worst(row: Mapping[str, Any], column: Mapping[str, Any], result: Mapping[str, Any], ours: Found) -> Found:
    """The worst case at the budget of the attack that was found, or else at the column's own."""
    rate, system = column.get("rate"), column.get("system", row["system"])
    worst = [c for c in result["worst_case"] if c["system"] == system and rate in (None, c.get("rate"))]
    if column.get("metric", "accuracy") != "accuracy":
        return ours  # a worst case is taken over accuracies
    if ours.cell is not None:
        at = tuple(ours.cell.get(name) for name in ("norm", "eps", "rate"))
        worst = [c for c in worst if tuple(c.get(name) for name in ("norm", "eps", "rate")) == at]
    elif column.get("eps") is not None:
        worst = [c for c in worst if _in_budget(c, column)]
    else:
        return ours  # neither names a budget: the worst case of another attack would be no answer
    return _one(worst, "any attack at this budget")


def _in_budget(cell: Mapping[str, Any], column: Mapping[str, Any]) -> bool:
    if column.get("norm") is not None and cell["norm"] != column["norm"]:
        return False
    if column.get("eps") is None:
        return True
    return cell["eps"] is not None and same_eps(cell["eps"], float(column["eps"]))


def _one(cells: Sequence[Mapping[str, Any]], what: str) -> Found:
    if len(cells) > 1:
        return Found(reason=f"{NOT_RUN} uniquely: {what} has several budgets or rates, give norm, eps and rate")
    return Found(cells[0]) if cells else Found(reason=f"{NOT_RUN}: {what}")
