import io
import math

import numpy as np
import pytest
from recorded import BIG, EPS, held, join, make_cell
from rich.console import Console

from robustforge.files import write_json
from robustforge.reporting.result import make_result, read_result
from robustforge.reporting.sweep import summary_of_runs
from robustforge.reporting.tables import markdown_run, render_run
from robustforge.reporting.text import budget, percent


def text_of(table):
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(table)
    return console.export_text()


def test_make_result(small, meta):
    result = make_result(small, {**meta, "diagnostics": {"agreement": np.float32(0.5), "nan": math.nan}})
    assert (result["schema"], result["name"], result["n_test"], result["defense"]) == (1, "demo", 10, "memdef")
    assert result["objective"] == 40
    assert result["objective_of"]["attack"] == "worst_case"
    assert len(result["cells"]) == 7
    assert {(c["system"], round(255 * c["eps"])): c["accuracy"] for c in result["worst_case"]} == {
        ("undefended", 9): 20, ("memdef", 9): 40, ("memdef", 25): 50,
    }  # fmt: skip
    assert result["diagnostics"] == {"agreement": 0.5, "nan": None}


def test_what_other_code_made_is_said_in_the_table(small, meta):
    assert "another version" not in markdown_run(make_result(small, meta))
    stages = [{"name": "undefended", "other_code": True}, {"name": "stack", "other_code": False}]
    reused = {"stages": stages, "reused_from_other_code": ["memdef: clean", "memdef: pgd"]}
    text = markdown_run(make_result(small, {**meta, **reused}))
    assert "the products of undefended and 2 measured cells" in text
    assert "store.made_by_other_code=remake" in text


def test_objective_without_a_default_budget(small):
    assert make_result(small, {})["objective"] is None  # two budgets, and none is the default
    one = make_cell("undefended", "pgd", "end_to_end", EPS, held(10, 2))
    assert make_result(one, {})["objective"] == 20
    clean = make_cell("memdef", "clean", "none", 0.0, held(10, 7))
    assert make_result(clean, {})["objective"] == 70


def test_an_unbounded_attack_survives_json(tmp_path, meta):
    columns = join(
        make_cell("memdef", "clean", "none", 0.0, held(4, 4)),
        make_cell("memdef", "cw", "a", np.nan, held(4, 1), norm="l2"),
        make_cell("memdef", "cw", "b", np.nan, held(4, 2), norm="l2"),
    )
    result = read_result(write_json(tmp_path / "result.json", make_result(columns, {"defense": "memdef"})))
    assert [(c["eps"], c["accuracy"]) for c in result["worst_case"]] == [(None, 25)]
    assert "any size" in markdown_run(result)


def test_read_result_refuses_other_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="never evaluated"):
        read_result(tmp_path)
    write_json(tmp_path / "result.json", {"schema": 0})
    with pytest.raises(ValueError, match="schema 1"):
        read_result(tmp_path)


@pytest.mark.parametrize("render", [lambda r: text_of(render_run(r)), markdown_run])
def test_run_tables_hold_the_numbers(render, small, large, meta):
    text = render(make_result(small, meta))
    for part in ("memdef", "40.0", "70.0", "9/255", "25/255", "slot_given", "worst case", "±26.3"):
        assert part in text
    assert "72.10 ±2.78" in render(make_result(large, meta))


def test_few_columns_are_not_transposed(meta):
    columns = join(
        make_cell("memdef", "clean", "none", 0.0, held(10, 9)),
        make_cell("memdef", "pgd", "selector", EPS, held(10, 5)),
    )
    lines = markdown_run(make_result(columns, meta)).splitlines()
    assert lines[2] == "| system | clean | pgd L∞ 9/255 selector | worst case L∞ 9/255 |"
    assert lines[4].startswith("| memdef | 90.0 ±19.3 | 50.0 ±26.3 | 50.0")


def test_summary_of_runs(small, meta):
    good = make_result(small, meta)
    runs = [
        (["memory=100", "data=digits"], good),
        (["memory=500", "data=digits"], None),
        ({"memory": 1000, "data": "digits"}, {"failed": "out of memory"}),
    ]
    summary = summary_of_runs(runs)
    assert summary.header == ["memory", "clean", "worst case", "objective", "state"]
    assert summary.rows[0] == ["100", "90.0 ±19.3", "40.0 ±26.0", "40.00", "ok"]
    assert summary.failed == [False, True, True]
    assert summary.rows[2][-1] == "failed: out of memory"
    assert "failed: out of memory" in text_of(summary.table())
    assert "| 500 |" in summary.markdown()
    assert summary.csv().splitlines()[0] == "memory,clean,worst case,objective,state"


def test_words():
    assert [budget(e) for e in (EPS, BIG, 0.3, 0.1, 0.2, 8 / 255, 0.0353, math.inf)] == [
        "9/255", "25/255", "0.3", "0.1", "0.2", "8/255", "9/255", "any size",
    ]  # fmt: skip
    assert budget(0.5, "l2") == "0.5"
    assert (percent(12.3456, 999), percent(12.3456, 1000)) == ("12.3", "12.35")
