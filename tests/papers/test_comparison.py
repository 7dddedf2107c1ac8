"""A paper's table beside ours: numbers, verdicts and what is missing, by hand."""

import csv
import io
import json
from dataclasses import replace

import numpy as np
import pytest
from drawn import assert_drawn
from made_up import table
from recorded import BIG, EPS, held, join, make_cell
from rich.console import Console

from robustforge.papers.comparison import compare
from robustforge.papers.rendering import render, write
from robustforge.reporting.result import make_result

HEADER = ["Made-up table", "cpu profile: ten images"]
SPEC = {
    "title": "Made-up table",
    "paper_table": "memdef_table1",
    "rows": [
        {"label": "undefended", "paper_row": "ResNet-50_ben", "run": "long", "system": "undefended"},
        {"label": "copied", "paper_row": "PixelDefend"},
        {"label": "memory", "paper_row": "Memory-Defense", "run": "long", "system": "memdef",
         "paper_surface": "slot_given", "adapted": "worst_case"},
        {"label": "memory, selector attack", "paper_row": "Memory-Defense", "run": "long", "system": "memdef",
         "paper_surface": "slot_given", "adapted": "selector"},
        {"label": "missing", "paper_row": "Memory-Defense", "run": "short", "system": "memdef"},
        {"label": "broken", "paper_row": "Memory-Defense", "run": "broken", "system": "memdef"},
    ],
    "columns": [
        {"label": "Clean", "paper_key": "CLEAN", "attack": "clean"},
        {"label": "FGSM 9/255", "paper_key": "FGSM", "paper_index": 0, "attack": "fgsm", "eps": 0.0352941},
        {"label": "PGD 9/255", "paper_key": "PGD", "paper_index": 0, "attack": "pgd", "eps": EPS},
        {"label": "PGD 25/255", "paper_key": "PGD", "paper_index": 1, "attack": "pgd", "eps": BIG},
    ],
}  # fmt: skip


@pytest.fixture
def cells(small, meta):
    return compare(table(SPEC), {"long": make_result(small, meta), "broken": {"failed": "out of memory"}})


def at(cells, row, column):
    return next(c for c in cells if (c.row, c.column) == (row, column))


def test_compare_by_hand(cells):
    assert len(cells) == 6 * 4
    cell = at(cells, "memory", "PGD 9/255")
    assert (cell.paper, cell.ours, cell.adapted, cell.n, cell.seed) == (89.97, 90, 40, 10, 3)
    assert (cell.verdict, cell.shortfall, cell.avg_like_code) == ("reached", 0, 90)
    assert at(cells, "memory, selector attack", "PGD 9/255").adapted == 70
    cell = at(cells, "memory", "PGD 25/255")
    assert (cell.ours, cell.verdict, cell.avg_like_code) == (50, "39.80 points short", 70)
    clean = at(cells, "memory", "Clean")
    assert (clean.ours, clean.adapted, clean.avg_like_code) == (90, 90, None)


def test_what_is_missing_says_why(cells):
    copied = at(cells, "copied", "PGD 9/255")
    assert (copied.paper, copied.ours, copied.verdict) == (None, None, "copied from the paper")
    assert at(cells, "copied", "Clean").paper == 89
    assert at(cells, "missing", "Clean").reason == "not run"
    assert at(cells, "broken", "Clean").reason == "run failed: out of memory"
    assert at(cells, "undefended", "FGSM 9/255").reason == "not run: fgsm on end_to_end"
    assert at(cells, "undefended", "FGSM 9/255").verdict == "not run"
    assert at(cells, "memory, selector attack", "FGSM 9/255").adapted_reason == "not run: fgsm on selector"


def test_reached_allows_the_paper_s_rounding(small):
    spec = table(SPEC, rows=SPEC["rows"][2:3], columns=SPEC["columns"][:1])
    result = make_result(small, {})
    clean = next(c for c in result["cells"] if c["system"] == "memdef" and c["attack"] == "clean")
    for accuracy, verdict in ((92.355, "reached"), (92.35, "0.01 points short")):
        clean["accuracy"] = accuracy
        assert compare(spec, {"long": result})[0].verdict == verdict


def test_records_are_taken_as_well(small, cells):
    again = compare(table(SPEC), {"long": small, "broken": {"failed": "out of memory"}})
    assert [replace(cell, gap=None) for cell in again] == cells
    # only records tell which images: 90 % are still right under the paper's protocol, 40 % in the worst case
    gap = at(again, "memory", "PGD 9/255").gap
    assert (gap.points, gap.n) == (50, 10)
    assert gap.low < 50 < gap.high
    assert at(again, "memory", "Clean").gap.points == 0
    assert at(again, "missing", "Clean").gap is None


def test_a_column_without_budget_takes_the_recorded_one(small):
    column = {"label": "FGSM", "paper_key": "FGSM", "paper_index": 0, "attack": "fgsm"}
    (cell,) = compare(table(SPEC, rows=SPEC["rows"][2:3], columns=[column]), {"long": small})
    assert (cell.ours, cell.adapted) == (90, 40)
    column = {**column, "attack": "pgd"}
    (cell,) = compare(table(SPEC, rows=SPEC["rows"][2:3], columns=[column]), {"long": small})
    assert "several budgets" in cell.reason
    column = {**column, "attack": "cw"}
    (cell,) = compare(table(SPEC, rows=SPEC["rows"][2:3], columns=[column]), {"long": small})
    assert (cell.adapted, cell.adapted_reason) == (None, "not run: cw on slot_given")


def test_what_both_say_the_column_decides(small):
    row = {**SPEC["rows"][2], "attack": "pgd", "eps": BIG}
    which = row.pop("paper_row")
    column = {"label": "FGSM", "paper_key": "CLEAN", "paper_row": which}
    (theirs,) = compare(table(SPEC, rows=[row], columns=[column]), {"long": small})
    column |= {"attack": "fgsm", "eps": 0.0352941}
    (own,) = compare(table(SPEC, rows=[row], columns=[column]), {"long": small})
    assert (theirs.ours, own.ours) == (50, 90)
    assert (
        theirs.paper == own.paper == at(compare(table(SPEC), {"long": small}), SPEC["rows"][2]["label"], "Clean").paper
    )


def test_render(cells):
    console = Console(width=180, record=True, file=io.StringIO())
    console.print(render(cells, HEADER))
    text = console.export_text()
    for part in (
        *HEADER,
        "89.97",
        "90.0 ✓",
        "(-39.80)",
        "copied from the paper",
        "run failed: out of memory",
        "not run",
    ):
        assert part in text


def test_write(cells, tmp_path):
    files = write(cells, tmp_path / "out", HEADER)
    assert [f.name for f in files] == ["table.md", "table.csv", "table.json", "table.png"]
    markdown = files[0].read_text()
    for part in (*HEADER, "90.0 ✓", "50.0 (-39.80)", "run failed: out of memory"):
        assert part in markdown
    rows = list(csv.DictReader(io.StringIO(files[1].read_text())))
    assert len(rows) == 24
    assert {row["statement"] for row in rows} == {" | ".join(HEADER)}
    pgd = next(row for row in rows if (row["row"], row["column"]) == ("memory", "PGD 25/255"))
    assert (pgd["ours"], pgd["avg_like_code"], pgd["verdict"]) == ("50.0000", "70.0000", "39.80 points short")
    data = json.loads(files[2].read_text())
    assert data["header"] == HEADER
    assert len(data["cells"]) == 24
    assert_drawn(files[3])


# ---- selective classifiers ------------------------------------------------------------------------------------------


def selective(column):
    """Ten images: seven accepted and right, one accepted and wrong, two rejected, one of which is recovered."""
    right, accepted = [1] * 7 + [0] * 3, [1] * 8 + [0] * 2
    again = [1] * 8 + [0] * 2
    again[7], again[8] = 0, 1  # the accepted error stays, the first rejected image is got right
    cells = []
    for attack, surface, eps in (("clean", "none", 0.0), ("fgsm", "encoder", 0.06), ("fgsm", "encoder", 0.3)):
        cells.append(make_cell("gmvae", attack, surface, eps, right, accepted=accepted))
        cells.append(make_cell("reclassified", attack, surface, eps, again))
    result = make_result(join(*cells), {"name": "gmvae", "seed": 3, "defense": "gmvae"})
    spec = {
        "paper_table": "gmvae_table2",
        "rows": [{"label": "one", "paper_row": {"eps": 0.06}, "run": "a", "system": "gmvae", "eps": 0.06,
                  "paper_surface": "encoder"}],
        "columns": [{"label": "column", "paper_key": "accuracy", **column}],
    }  # fmt: skip
    return compare(table(spec), {"a": result})[0]


@pytest.mark.parametrize(
    ("column", "ours", "n"),
    [
        ({"attack": "clean"}, 70, 10), ({"attack": "clean", "metric": "error"}, 10, 10),
        ({"attack": "clean", "metric": "rejected"}, 20, 10),
        ({"attack": "clean", "system": "reclassified"}, 80, 10),
        ({"attack": "fgsm"}, 90, 10),  # under attack a rejected image is no success of the attacker's
        ({"attack": "fgsm", "metric": "error"}, 10, 10), ({"attack": "fgsm", "metric": "rejected"}, 20, 10),
        ({"attack": "fgsm", "metric": "recovered", "system": "reclassified", "direct": "gmvae"}, 50, 2),
        ({"attack": "clean", "metric": "recovered", "system": "reclassified", "direct": "gmvae"}, 50, 2),
    ],
)  # fmt: skip
def test_metrics_of_a_selective_classifier(column, ours, n):
    cell = selective(column)
    assert (cell.ours, cell.n) == (pytest.approx(ours), n)
    low, high = cell.ours_interval
    assert low <= ours <= high


def test_fewer_errors_than_the_papers_are_no_shortfall():
    worse = selective({"attack": "clean", "metric": "rejected"})  # the paper's number here is 97
    assert worse.verdict == "reached"
    assert selective({"attack": "clean"}).verdict == "27.00 points short"


def test_recovery_without_the_direct_system_is_not_run():
    assert (
        selective({"attack": "fgsm", "metric": "recovered", "system": "reclassified", "direct": "missing"}).verdict
        == "not run"
    )
    with pytest.raises(ValueError, match="no metric"):
        selective({"attack": "fgsm", "metric": "coverage"})


def test_a_row_names_its_attack_and_a_column_its_metric():
    risky = make_cell("mrr", "pgd", "victim", EPS, held(10, 4), accepted=[True] * 6 + [False] * 4)
    clean = make_cell("mrr", "clean", "none", 0.0, held(10, 9), accepted=[True] * 8 + [False] * 2)
    clean["linf"], clean["risk"] = np.zeros(10), np.linspace(0, 0.9, 10)
    risky["risk"] = np.linspace(0.45, 1.35, 10)
    other = make_cell("mrr", "fgsm", "victim", EPS, held(10, 4)) | {"risk": np.full(10, 2.0)}
    spec = {
        "paper_table": "mrr_table1",
        "rows": [
            {"label": name, "paper_row": {"attack": row}, "run": "one", "system": "mrr", "paper_surface": "victim",
             "attack": name}
            for name, row in (("fgsm", "FGS"), ("pgd", "BIM"))
        ],
        "columns": [
            {"label": "auroc", "paper_key": "MNIST", "paper_scale": 100, "metric": "auroc"},
            {"label": "rejected", "paper_key": None, "attack": "clean", "metric": "rejected"},
        ],
    }  # fmt: skip
    fgsm, rejected, pgd, _ = compare(table(spec), {"one": join(clean, other, risky)})
    assert (fgsm.ours, fgsm.paper, fgsm.verdict) == (100.0, 99.6, "reached")
    assert rejected.ours == pytest.approx(20)
    # attacked risk k is above as many clean ones as there are below 0.45 + 0.1 k: 5, 6, 7, 8, 9, then all 10
    assert pgd.ours == pytest.approx(100 * (5 + 6 + 7 + 8 + 9 + 5 * 10) / 100)
    assert "points short" in pgd.verdict
