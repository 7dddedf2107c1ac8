"""What dashboards show of a result, as plain rows, numbers and lines: none of them computes anything itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robustforge.records.abstention import changed_risks, risk_coverage, roc
from robustforge.records.table import CLEAN, Records
from robustforge.reporting.figures.abstention_curves import shown_cells
from robustforge.reporting.figures.security import security_panels
from robustforge.reporting.seeds import AxisCurve
from robustforge.reporting.text import NORMS

CELLS = (
    *("system", "attack", "surface", "norm", "eps", "false_positive_rate", "n", "accuracy", "low", "high"),
    *("rejected", "verdict", "violated", "forwards", "backwards", "seconds", "check", "seed"),
)
STAGES = ("stage", "key", "reused", "other_code", "seconds")
POINTS = 200  # of a line, at most


@dataclass(frozen=True)
class Chart:
    """Lines over one axis.

    Attributes:
        title: of the chart.
        x: what is on its axis.
        y: what the lines are.
        lines: (x values, y values) by name; a line need not have the x values of another.
    """

    title: str
    x: str
    y: str
    lines: dict[str, tuple[list[float], list[float]]] = field(default_factory=dict)


def cell_rows(result: Mapping[str, Any]) -> list[list[Any]]:
    """One row a number of the result, worst cases and checks included, with the columns ``CELLS``."""
    return [_row(cell) for cell in (*result["cells"], *result["worst_case"], *result.get("checks", ()))]


def _row(cell: Mapping[str, Any]) -> list[Any]:
    low, high = cell["interval"] or (None, None)
    told = {
        **cell,
        "false_positive_rate": cell.get("rate"),
        "low": low,
        "high": high,
        "violated": ", ".join(cell.get("violated") or ()),
    }
    return [told.get(name) for name in CELLS]


def stage_rows(result: Mapping[str, Any]) -> list[list[Any]]:
    """One row a stage, with the columns ``STAGES``: whether it was made or taken from the store."""
    named = ({"stage": stage.get("name"), **stage} for stage in result.get("stages", ()))
    return [[stage.get(name) for name in STAGES] for stage in named]


def numbers(result: Mapping[str, Any]) -> dict[str, float]:
    """Every accuracy, diagnostic and the objective of a result, by a name that is the same in every run."""
    found = {metric_name(cell): cell["accuracy"] for cell in (*result["cells"], *result["worst_case"])}
    found |= {f"diagnostics/{key}": value for key, value in result["diagnostics"].items()}
    found["objective"] = result["objective"]
    return {name: value for name, value in found.items() if value is not None}


def metric_name(cell: Mapping[str, Any]) -> str:
    """``accuracy/<system>/<attack>/<surface>/<norm>_<eps>``, with the false-positive rate where there is one."""
    parts = [cell["system"], cell["attack"]]
    if cell["attack"] != CLEAN:
        eps = "any" if cell["eps"] is None else f"{cell['eps']:.4g}"
        parts += [str(cell["surface"]), f"{cell['norm']}_{eps}"]
    if cell.get("rate") is not None:
        parts.append(f"fpr_{cell['rate']:g}")
    return "accuracy/" + "/".join(parts)


def charts(result: Mapping[str, Any], records: Records) -> dict[str, Chart]:
    """Security curves by norm and, for a system with a risk, risk-coverage and ROC: the lines of the figures."""
    found = {}
    for norm, lines in security_panels([result]).items():
        chart = Chart(f"accuracy by {NORMS.get(norm, norm)} budget", "budget", "accuracy (%)")
        for name, points in lines.items():
            eps = sorted(points)
            chart.lines[name] = list(map(float, eps)), [float(points[one]["accuracy"]) for one in eps]
        found[f"security_curve_{norm}"] = chart
    return found | _abstention(result, records)


def _abstention(result: Mapping[str, Any], records: Records) -> dict[str, Chart]:
    cells = shown_cells(records, result)
    coverage = Chart("risk and coverage", "accepted (%)", "wrong among the accepted (%)")
    detection = Chart("ROC of attacked against clean images", "clean images rejected (%)", "attacked rejected (%)")
    clean = next((part for words, _, part in cells if words == "clean"), None)
    for words, _, part in cells:
        name = words.replace("\n", " ")
        coverage.lines[name] = _thinned(*risk_coverage(part["risk"], part["prediction"] != part["label"]))
        positive = changed_risks(part)
        if clean is not None and part is not clean and len(positive):
            detection.lines[name] = _thinned(*roc(clean["risk"], positive))
    return {name: one for name, one in (("risk_coverage", coverage), ("roc", detection)) if one.lines}


def _thinned(x: NDArray[Any], y: NDArray[Any]) -> tuple[list[float], list[float]]:
    """Shares as percent, at most ``POINTS`` of them."""
    kept = np.unique(np.linspace(0, len(x) - 1, POINTS).astype(int))
    return (100 * x[kept]).tolist(), (100 * y[kept]).tolist()


def axis_charts(curves: Sequence[AxisCurve]) -> dict[str, Chart]:
    """Means along the swept overrides with the ends of their intervals; axes that are no numbers count 0, 1, 2 ..."""
    found = {}
    for curve in curves:
        at = _places(list(curve.points))
        chart = Chart(curve.title, curve.axis, "accuracy (%)")
        for name in dict.fromkeys(name for one in curve.points.values() for name in one):
            points = [(at[value], one[name]) for value, one in curve.points.items() if name in one]
            points.sort(key=lambda point: point[0])
            chart.lines[name] = [x for x, _ in points], [one.mean for _, one in points]
            for end in ("low", "high"):
                ends = [(x, getattr(one, end)) for x, one in points if getattr(one, end) is not None]
                if ends:
                    chart.lines[f"{name}, {end}"] = [x for x, _ in ends], [value for _, value in ends]
        found[curve.title] = chart
    return found


def _places(values: Sequence[str]) -> dict[str, float]:
    try:
        return {value: float(value) for value in values}
    except ValueError:
        return {value: float(place) for place, value in enumerate(values)}


def chart_rows(found: Mapping[str, Chart]) -> list[list[Any]]:
    """All charts as rows (chart, line, x, y), for a CSV file."""
    return [
        [name, line, x, y]
        for name, chart in found.items()
        for line, (xs, ys) in chart.lines.items()
        for x, y in zip(xs, ys, strict=True)
    ]
