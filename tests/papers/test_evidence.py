"""Result files: what is in them, that they are stable, and how a new one takes over what it lacks."""

import copy
import json
from dataclasses import replace

import pytest
from made_up import table

from robustforge.papers.comparison import compare
from robustforge.papers.evidence import (
    cells_of,
    data_name,
    evidence_of,
    evidence_path,
    read_evidence,
    table_digest,
    write_evidence,
)
from robustforge.papers.merging import merged
from robustforge.papers.rendering import render
from robustforge.reporting.result import make_result

SPEC = {
    "title": "Made-up table",
    "paper_table": "memdef_table1",
    "diagnostics": ["leak"],
    "rows": [
        {
            "label": "first",
            "paper_row": "Memory-Defense",
            "run": "a",
            "system": "memdef",
            "paper_surface": "slot_given",
        },
        {
            "label": "second",
            "paper_row": "Memory-Defense",
            "run": "b",
            "system": "memdef",
            "paper_surface": "slot_given",
        },
        {"label": "mean", "run": ["a", "b"], "system": "memdef", "paper_surface": "slot_given"},
        {"label": "copied", "paper_row": "PixelDefend"},
    ],
    "columns": [
        {"label": "Clean", "paper_key": "CLEAN", "attack": "clean"},
        {"label": "PGD", "paper_key": "PGD", "paper_index": 0, "attack": "pgd", "eps": 9 / 255},
    ],
}
STAGE = {"name": "memory", "key": "k" * 64, "reused": True, "seconds": 0.1, "other_code": False, "made_in": 60.0}


@pytest.fixture
def spec():
    return table(SPEC)


@pytest.fixture
def result(small, meta):
    more = {
        "protocol": "paper/memdef",
        "strict": True,
        "depends": "0123456789abcdef",
        "data": {"name": "cifar10", "jpeg": True, "fingerprint": "f" * 64},
        "machine": "a machine, 2 threads",
        "date": "2026-01-02T03:04:05+00:00",
        "code": {"version": "1", "commit": "c" * 40, "modified": False, "source": "s"},
        "stages": [STAGE],
        "diagnostics": {"leak": 0.25, "other": 1.0},
    }
    return make_result(small, meta | more)


def content(spec, **results):
    return evidence_of("made/up", "cpu", spec, [], compare(spec, results), results)


def at(made, row, column):
    return next(cell for cell in made["cells"] if (cell["row"], cell["column"]) == (row, column))


def test_a_file_has_all_that_a_reader_asks_for(spec, result):
    made = content(spec, a=result, b=result)
    run = made["runs"]["a"]
    assert run["data"] == {"name": "CIFAR-10 (JPEG)", "fingerprint": "f" * 64}
    assert (run["protocol"], run["seed"], run["version"], run["commit"], run["modified"]) == (
        *("paper/memdef", 3, "1"),
        *("c" * 40, False),
    )
    assert run["stages"] == {"memory": "k" * 16}
    assert run["training_seconds"] == {"memory": 60.0}
    assert run["diagnostics"] == {"leak": 0.25}
    assert made["seconds"] == 60, "a stage that both runs share is counted once"
    cell = at(made, "first", "PGD")
    assert (cell["paper"], cell["ours"], cell["adapted"], cell["n"]) == (89.97, 90.0, 40.0, 10)
    assert cell["ours_interval"] == [59.585, 98.2124]
    assert cell["adapted_verdict"] == "robust accuracy"
    assert made["cells"][0].get("violated") is None, "what is empty is left out"
    assert at(made, "copied", "Clean")["verdict"] == "copied from the paper"


def test_what_is_written_is_read_again_and_shows_the_same_table(spec, result, tmp_path):
    made = content(spec, a=result, b=result)
    path = write_evidence(tmp_path / "made" / "up.json", made)
    assert read_evidence(path) == json.loads(json.dumps(made))
    assert path.read_text().count("\n") < 30, "one line a run and a cell"
    shown = [render(cells) for cells in (cells_of(read_evidence(path)), compare(spec, {"a": result, "b": result}))]
    assert [list(column.cells) for column in shown[0].columns] == [list(column.cells) for column in shown[1].columns]
    path.write_text('{"schema": 99}')
    with pytest.raises(ValueError, match="run 'scripts/reproduce.py' for it again"):
        read_evidence(path)


def test_what_speaks_against_a_number_stands_beside_it(spec, result):
    worst = [cell | {"violated": ["zero gradients"], "verdict": "unreliable"} for cell in result["worst_case"]]
    made = content(spec, a=result, b=result | {"worst_case": worst})
    assert at(made, "second", "PGD")["adapted_violated"] == ["zero gradients"]
    assert at(made, "second", "PGD")["adapted_verdict"] == "unreliable"
    assert "adapted_verdict" not in at(made, "mean", "PGD"), "the two runs have no common verdict"
    assert at(made, "mean", "PGD")["adapted_violated"] == ["zero gradients"]
    assert cells_of(made)[3].adapted_violated == ("zero gradients",)


def test_the_profile_is_in_the_name_unless_it_is_the_usual_one(tmp_path):
    assert evidence_path(tmp_path, "cae/table2", "cpu") == tmp_path / "cae" / "table2.json"
    assert evidence_path(tmp_path, "cae/table2", "gpu") == tmp_path / "cae" / "table2.gpu.json"


def test_names_of_data():
    assert data_name({"name": "mnist", "jpeg": False}) == "MNIST"
    assert data_name({"name": "mine"}) == "mine"


def test_the_same_again_changes_nothing(spec, result):
    first = content(spec, a=result, b=result)
    again = content(spec, **{run: result | {"date": "later", "machine": "another"} for run in "ab"})
    assert merged(again, first, spec) == first


def test_runs_that_are_not_at_hand_are_taken_from_the_old_file(spec, result):
    both = content(spec, a=result, b=result)
    alone = merged(content(spec, a=result), both, spec)
    assert alone == both
    other = result | {"depends": "another", "cells": [cell | {"accuracy": 12.0} for cell in result["cells"]]}
    mixed = merged(content(spec, b=other), both, spec, changed={"a"})
    assert mixed["runs"]["a"] == both["runs"]["a"]
    assert at(mixed, "first", "PGD") == at(both, "first", "PGD")
    assert at(mixed, "second", "PGD")["ours"] == 12.0
    assert at(mixed, "mean", "PGD")["verdict"] == "not run", "a mean of runs of two versions of the code is no mean"


def with_accuracy(result, accuracy):
    cells = [cell | {"accuracy": accuracy} for cell in result["cells"]]
    return result | {"cells": cells, "worst_case": [cell | {"accuracy": accuracy} for cell in result["worst_case"]]}


MEAN = {"label": "mean", "run": ["a", "b", "c"], "system": "memdef", "paper_surface": "slot_given"}


@pytest.fixture
def seeds(result):
    """Results of three seeds, whose mean is 30."""
    return {run: with_accuracy(result, accuracy) for run, accuracy in {"a": 10.0, "b": 20.0, "c": 60.0}.items()}


def one_after_the_other(spec, seeds, *runs):
    """The file after each run was made where the others are not at hand."""
    made = content(spec, **{runs[0]: seeds[runs[0]]})
    for run in runs[1:]:
        made = merged(content(spec, **{run: seeds[run]}), json.loads(json.dumps(made)), spec)
    return made


@pytest.mark.parametrize("partial", [False, True])
def test_seeds_that_were_run_apart_have_the_mean_of_those_that_were_run_together(seeds, partial):
    spec = table(SPEC, rows=[MEAN | {"partial": partial}])
    apart = one_after_the_other(spec, seeds, "a", "b", "c")
    assert apart["cells"] == content(spec, **seeds)["cells"]
    assert (list(apart["runs"]), apart.get("together")) == (["a", "b", "c"], None)
    assert at(apart, "mean", "PGD")["ours"] == 30.0
    own = {run: cell.ours for run, cell in cells_of(apart)[1].by_run.items()}
    assert own == {"a": 10.0, "b": 20.0, "c": 60.0}, "the numbers of each seed are kept"


@pytest.mark.parametrize(("partial", "ours"), [(False, None), (True, 15.0)])
def test_a_mean_of_some_seeds_is_shown_where_the_table_says_so(seeds, partial, ours):
    spec = table(SPEC, rows=[MEAN | {"partial": partial}])
    assert at(one_after_the_other(spec, seeds, "a", "b"), "mean", "PGD").get("ours") == ours


@pytest.mark.parametrize(("partial", "ours"), [(False, None), (True, 40.0)])
def test_no_mean_is_taken_over_what_would_be_another_run_today(seeds, partial, ours):
    spec = table(SPEC, rows=[MEAN | {"partial": partial}])
    later = merged(content(spec, c=seeds["c"]), one_after_the_other(spec, seeds, "a", "b"), spec, changed={"a"})
    assert at(later, "mean", "PGD").get("ours") == ours


def without_seeds(made):
    """As a file of an earlier version: a mean, without the numbers behind it."""
    cells = [{key: value for key, value in cell.items() if key != "by_run"} for cell in made["cells"]]
    return {**made, "cells": cells}


def test_a_row_that_no_new_run_is_in_stays_as_it_was(seeds):
    spec = table(SPEC, rows=[MEAN | {"partial": True}, {**MEAN, "label": "another", "run": "d"}])
    old = without_seeds(one_after_the_other(spec, seeds, "a", "b"))
    made = merged(content(spec, d=seeds["c"]), old, spec)
    assert made["cells"][:2] == old["cells"][:2]
    assert "together" not in made


def test_runs_that_cannot_be_put_together_are_named_until_they_are(seeds):
    spec = table(SPEC, rows=[MEAN | {"partial": True}, {**MEAN, "label": "another", "run": "d"}])
    old = without_seeds(one_after_the_other(spec, seeds, "a", "b"))
    made = merged(content(spec, c=seeds["c"]), old, spec)
    assert made["together"] == ["a", "b", "c"]
    later = merged(content(spec, d=seeds["a"]), made, spec)
    assert later["together"] == ["a", "b", "c"], "another run mends nothing"
    together = merged(content(spec, **seeds), later, spec)
    assert "together" not in together
    assert at(together, "mean", "PGD")["ours"] == 30.0


def test_a_number_over_an_old_and_a_new_run_names_both(seeds):
    row = {**MEAN, "run": "a", "adapted_run": "b"}
    spec = table(SPEC, rows=[row])
    made = one_after_the_other(spec, seeds, "a", "b")
    assert made["together"] == ["a", "b"]
    assert "together" not in merged(content(spec, a=seeds["a"], b=seeds["b"]), made, spec)


def test_other_overrides_make_another_file(spec, result):
    old = content(spec, a=result, b=result)
    new = {**content(spec, a=result), "overrides": ["seed=1"]}
    assert merged(new, old, spec) == new


def test_new_numbers_of_the_same_run_come_with_their_own_date(spec, result):
    old = content(spec, a=result, b=result)
    changed = copy.deepcopy(result) | {"date": "later"}
    for cell in changed["cells"]:
        cell["accuracy"] = 1.0
    made = merged(content(spec, a=changed, b=result), old, spec)
    assert made["runs"]["a"]["date"] == "later"
    assert at(made, "first", "PGD")["ours"] == 1.0


def test_the_digest_of_a_table_goes_by_its_cells(spec):
    assert table_digest(spec) == table_digest(table(SPEC, title="Another title"))
    fewer = replace(spec, cells=spec.cells[1:])
    assert table_digest(fewer) != table_digest(spec)
