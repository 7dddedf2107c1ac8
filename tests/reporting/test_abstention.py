"""What tables and pictures say of systems that may reject."""

import numpy as np
from drawn import assert_drawn
from recorded import EPS, join, make_cell, with_risk

from robustforge.reporting.figures.abstention_curves import abstention_curves
from robustforge.reporting.result import make_result
from robustforge.reporting.tables import markdown_run, render_abstention


def test_in_results_tables_and_pictures(detector, tmp_path):
    result = make_result(detector, {"defense": "det", "calibration_images": 129, "rate": 0.1})
    assert result["thresholds"] == [{"system": "det", "rate": 0.1, "value": 0.5, "calibration_images": 129}]
    assert result["objective"] == 40  # lost: image 1 (attacked), 2 (wrong when clean), 3 (refused when clean)
    text = markdown_run(result)
    assert "10 % FPR" in text
    assert "| det | pgd L∞ 9/255 end_to_end 10 % FPR | 20.0" in text
    assert "0.650" in text
    assert render_abstention(result).row_count == 2
    assert_drawn(abstention_curves(detector, result, tmp_path / "a.png"))


def test_nothing_is_said_without_a_risk(small, meta, tmp_path):
    result = make_result(small, meta)
    assert all(cell["abstention"] is None for cell in result["cells"])
    assert render_abstention(result) is None
    assert abstention_curves(small, result, tmp_path / "a.png") is None
    assert result["thresholds"] == []


def test_two_rates_are_two_numbers():
    def at(rate, held, clean):
        return [
            with_risk(make_cell("det", "clean", "none", 0.0, clean), [0.1] * 4, rate),
            with_risk(make_cell("det", "pgd", "end_to_end", EPS, held), [0.1] * 4, rate),
        ]

    plain = [
        with_risk(make_cell("undefended", "clean", "none", 0.0, [1, 1, 1, 1]), [np.nan] * 4, np.nan, np.nan),
        with_risk(make_cell("undefended", "pgd", "end_to_end", EPS, [0, 0, 0, 0]), [np.nan] * 4, np.nan, np.nan),
    ]
    columns = join(*plain, *at(0.01, [1, 0, 0, 0], [1, 1, 1, 1]), *at(0.05, [1, 1, 0, 0], [1, 1, 1, 0]))
    result = make_result(columns, {"defense": "det", "rate": 0.05})
    worst = {(c["system"], c["rate"]): c["accuracy"] for c in result["worst_case"]}
    assert worst == {("undefended", None): 0, ("det", 0.01): 25, ("det", 0.05): 50}
    assert (result["objective"], result["objective_of"]["rate"]) == (50, 0.05)
    pairs = {(c["attack"], c["rate"]): c["points"] for c in result["comparisons"]}
    assert pairs == {("clean", 0.01): 0, ("clean", 0.05): -25, ("worst_case", 0.01): 25, ("worst_case", 0.05): 50}
    text = markdown_run(result)
    row = next(line for line in text.splitlines() if line.startswith("| undefended"))
    assert row.count("100.0") == 2  # its one number stands under both rates
