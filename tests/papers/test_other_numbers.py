"""Numbers that are no accuracy under attack, and what is drawn from them: averages, percentiles of risk, pictures."""

import numpy as np
import pytest
from drawn import assert_drawn
from made_up import table
from recorded import BIG, EPS, join, make_cell

from robustforge.papers.comparison import compare
from robustforge.papers.figures import draw
from robustforge.records.metrics import Selection, measure
from robustforge.records.table import read_records
from robustforge.reporting.result import make_result

ROW = {
    "label": "memory",
    "paper_row": "Memory-Defense",
    "run": "long",
    "system": "memdef",
    "paper_surface": "slot_given",
}
GIVEN = {"paper_table": "memdef_table1", "rows": [ROW], "columns": []}


def columns(metric):
    return [
        {"label": "clean", "paper_key": "CLEAN", "attack": "clean", "metric": metric},
        {"label": "9", "paper_key": "PGD", "paper_index": 0, "attack": "pgd", "eps": EPS, "metric": metric},
        {"label": "25", "paper_key": "PGD", "paper_index": 1, "attack": "pgd", "eps": BIG, "metric": metric},
    ]


def test_the_released_codes_average_of_clean_and_attacked(small, meta):
    result = make_result(small, meta)
    clean, at_9, at_25 = compare(table(GIVEN, columns=columns("averaged")), {"long": result})
    assert (clean.ours, at_9.ours, at_25.ours) == (90, (90 + 90) / 2, (90 + 50) / 2)
    assert at_25.verdict == "19.80 points short"
    assert at_25.ours_interval is at_25.avg_like_code is None
    plain = compare(table(GIVEN, columns=columns("accuracy")), {"long": result})
    assert [cell.ours for cell in plain] == [90, 90, 50]


@pytest.fixture
def risky():
    """201 clean images whose risks are 0, .01 ... 2, and attacked ones of twice that."""
    risk = np.arange(201) / 100
    clean = make_cell("memdef", "clean", "none", 0.0, np.ones(201)) | {"risk": risk}
    return join(clean, make_cell("memdef", "pgd", "slot_given", EPS, np.ones(201)) | {"risk": 2 * risk})


def test_the_99th_percentile_of_risk(risky):
    records = read_records(risky)
    for attack, percentile in (("clean", 1.98), ("pgd", 3.96)):
        found, reason = measure("risk_99", Selection("memdef", (attack,), "slot_given"), records, None)
        assert (round(found["accuracy"], 6), found["n"], found["interval"], reason) == (100 * percentile, 201, None, "")
    assert measure("risk_99", Selection("memdef", ("fgsm",), "slot_given"), records, None)[0] is None


def test_figures_over_rows_and_pictures_of_runs(risky, tmp_path):
    source = tmp_path / "long" / "figures" / "latents.png"
    source.parent.mkdir(parents=True)
    source.write_bytes(b"a picture")
    figure = {"title": "by size", "axis": "rows", "columns": ["clean", "9"], "rows": {"500": "memory", "1000": "later"}}
    spec = table(
        GIVEN,
        columns=columns("risk_99"),
        pictures={"figure3.png": "long/latents", "missing.png": "long/nothing"},
        over_rows=[{"file": "figure4.png", **figure}, {"file": "empty.png", **figure, "columns": ["25"]}],
    )
    records = {"long": read_records(risky)}
    assert [cell.ours and round(cell.ours, 6) for cell in compare(spec, records)] == [198, 396, None]
    made = draw(spec, records, tmp_path)
    assert made == [tmp_path / "figure3.png", tmp_path / "figure4.png"]
    assert (tmp_path / "figure3.png").read_bytes() == b"a picture"
    assert_drawn(tmp_path / "figure4.png")


def test_a_picture_of_a_run_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="no run 'lang'.* 'long'"):
        table(GIVEN, columns=columns("accuracy"), pictures={"figure3.png": "lang/latents"})
