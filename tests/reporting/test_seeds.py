"""Seeds are folded in one place, for the terminal's table, the page and dashboards."""

import pytest

from robustforge.records.statistics import mean_interval
from robustforge.reporting.seeds import axis_curves, fold, grouped, over_seeds


def test_a_number_over_seeds():
    folded = fold([90.0, 92.0, 97.0])
    mean, (low, high) = mean_interval([90.0, 92.0, 97.0])
    assert (folded.mean, folded.low, folded.high, folded.values) == (mean, low, high, (90.0, 92.0, 97.0))
    assert str(folded) == f"{mean:.2f} ± {(high - low) / 2:.2f}"
    assert str(fold([90.0])) == "90.00"
    assert fold([]) is None
    assert fold([90.0, None]) is None, "the mean of some runs is not the mean of the runs"


def test_curves_along_every_axis_hold_the_others():
    runs = [
        ({"size": size, "eps": eps, "seed": seed}, {"worst case": float(size) + 10 * float(eps) + int(seed)})
        for size in ("20", "50") for eps in ("0.1", "0.2") for seed in ("0", "1")
    ]  # fmt: skip
    curves = axis_curves(runs)
    assert [curve.title for curve in curves] == [
        "size, where eps=0.1", "size, where eps=0.2", "eps, where size=20", "eps, where size=50",
    ]  # fmt: skip
    point = curves[1].points["50"]["worst case"]
    assert point.values == (52.0, 53.0)
    assert point.mean == pytest.approx(52.5)
    assert axis_curves([({"seed": "0"}, {"clean": 1.0}), ({"seed": "1"}, {"clean": 2.0})]) == []


def test_the_table_and_the_curves_agree():
    def result(clean):
        cell = {"system": "d", "attack": "clean", "accuracy": clean, "rate": None}
        return {"defense": "d", "cells": [cell], "worst_case": [], "objective": clean, "objective_of": None}

    runs = [([f"a={a}", f"seed={seed}"], result(a + seed)) for a in (10.0, 20.0) for seed in (0, 2)]
    table = over_seeds(runs)
    assert [row[:3] for row in table.rows] == [
        [str(a), "2 of 2", str(fold([a, a + 2]))] for a in (10.0, 20.0)
    ]  # fmt: skip
    assert grouped([({"a": "1"}, "x"), ({}, "y")], ["a"], "default") == {
        (("a", "1"),): ["x"], (("a", "default"),): ["y"],
    }  # fmt: skip
