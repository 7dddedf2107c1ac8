"""Rows that average runs of several seeds, and rows that the paper's table does not have."""

import math

import pytest
from made_up import table
from recorded import EPS, held, join, make_cell

from robustforge.papers.comparison import compare
from robustforge.papers.rendering import write
from robustforge.records.statistics import mean_interval

SPEC = table({
    "title": "Made-up table",
    "paper_table": "dfl_pcl_table1",
    "rows": [
        {"label": "mean", "paper_row": {"training": "Adversarial Training", "model": "Proposed Method"},
         "run": ["a", "b", "c"], "system": "dfl_pcl"},
        {"label": "one", "paper_table": "dfl_pcl_table3", "run": "a", "system": "dfl_pcl",
         "paper_row": {"training": "Adversarial Training", "model": "Proposed Method (DFL)"}},
        {"label": "ours", "paper_row": None, "run": "a", "system": "dfl_pcl"},
    ],
    "columns": [{"label": "FGSM", "paper_key": "FGSM", "attack": "fgsm", "eps": EPS}],
})  # fmt: skip


def records(right):
    return join(
        make_cell("dfl_pcl", "clean", "none", 0.0, held(10, 10)),
        make_cell("dfl_pcl", "fgsm", "end_to_end", EPS, held(10, right)),
        make_cell("dfl_pcl", "pgd", "end_to_end", EPS, held(10, right - 4)),
    )


def test_students_interval_by_hand():
    mean, (low, high) = mean_interval([90.0, 92.0, 97.0])
    assert mean == 93
    half = 4.303 * math.sqrt((9 + 1 + 16) / 2 / 3)
    assert (low, high) == (pytest.approx(93 - half), 100)
    assert mean_interval([50.0, 52.0])[1] == pytest.approx((51 - 12.706, 51 + 12.706))
    with pytest.raises(ValueError, match="at least two"):
        mean_interval([90.0])


def test_means_beside_the_papers_numbers(tmp_path):
    cells = compare(SPEC, {"a": records(6), "b": records(8), "c": records(10)})
    mean, one, ours = cells
    assert (mean.paper, mean.ours, mean.adapted) == (98.68, 80, 40)
    assert mean.verdict == "18.68 points short"
    assert mean.spread == pytest.approx((100 - (80 - 4.303 * 20 / math.sqrt(3))) / 2)
    assert (one.paper, one.ours, one.spread) == (97.3, 60, None)
    assert (ours.paper, ours.ours, ours.verdict) == (None, 60, "no paper value")
    text = write(cells, tmp_path, ["A table"])[0].read_text()
    assert f"80.0 ±{mean.spread:.1f} (-18.68)" in text
    assert "Student's 95 % interval" in text


def test_a_mean_lacks_what_one_of_its_runs_lacks():
    mean = compare(SPEC, {"a": records(6), "b": records(8), "c": None})[0]
    assert (mean.ours, mean.verdict) == (None, "not run")
