"""What a run cost, and cells of several runs of which some are not at hand."""

import pytest
from made_up import table

from robustforge.papers.comparison import compare
from robustforge.papers.costs import cost
from robustforge.reporting.result import make_result

CLEAN = {"attack": "clean", "n": 50, "seconds": 0.1, "seed": 0}
ROW = {
    "run": ["a", "b"],
    "system": "memdef",
    "paper_surface": "slot_given",
    "partial": True,
    "eps": 9 / 255,
    "label": "m",
}
COLUMNS = [
    {"label": "PGD", "attack": "pgd", "rate": 0.05},
    {"label": "worst", "attack": "worst_case", "rate": 0.05},
    {"label": "minutes", "attack": "clean", "metric": "training_minutes"},
]


def test_costs_by_hand():
    result = {"stages": [{"made_in": 60.0}, {"made_in": 30.0}]}
    assert cost("milliseconds", result, [CLEAN])[0]["accuracy"] == pytest.approx(2.0)
    assert cost("training_minutes", result, [CLEAN])[0]["accuracy"] == pytest.approx(1.5)
    assert cost("training_minutes", {"stages": [{"name": "old"}]}, [CLEAN]) == (
        None,
        "not recorded by an earlier version",
    )
    assert cost("milliseconds", result, []) == (None, "not run: clean")


def test_worst_cases_rates_and_runs_that_are_missing(small, meta):
    result = make_result(small, meta | {"stages": [{"name": "x", "key": "k", "made_in": 120.0}]})
    spec = table({"rows": [ROW], "columns": COLUMNS})
    pgd, worst, minutes = compare(spec, {"a": result})
    assert (pgd.ours, pgd.adapted) == (90, 40), "what never rejects has one number for all rates"
    assert (worst.ours, worst.adapted) == (40, 40)
    assert minutes.ours == 2
    assert pgd.paper is None
    assert compare(spec, {})[0].verdict == "not run"
    both = compare(spec, {"a": result, "b": result})
    assert (both[1].ours, both[1].spread) == (40, 0)
