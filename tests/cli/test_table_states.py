"""reproduce.py: lists, result files, and all tables in turn; without a training."""

import shutil
import sys
from pathlib import Path

import pytest
from recorded import join, make_cell

from robustforge.cli import remembered, reproduce, table_states
from robustforge.cli.table_states import load, open_runs, state_of, tables
from robustforge.config.dependence import digest_today
from robustforge.files import write_json
from robustforge.papers.evidence import read_evidence, write_evidence
from robustforge.records.schema import read_table, write_table
from robustforge.reporting.result import make_result

TABLE = "cae/table1a"  # two runs


@pytest.fixture
def trained(monkeypatch):
    """Runs leave results that were made by hand; trained[run] is the exit code that it is to have."""
    codes, made = {}, []

    def train(overrides, folder):
        made.append(folder.name)
        if codes.get(folder.name):
            return codes[folder.name]
        columns = join(*(make_cell("none", *cell, [1, 1, 0, 1]) for cell in (("clean", "none", 0.0),)))
        write_table(read_table(columns), folder / "records.parquet")
        meta = {"name": "x", "seed": 0, "defense": "none", "depends": digest_today(overrides), "date": "2026-01-02T00"}
        write_json(folder / "result.json", make_result(columns, meta))
        return 0

    monkeypatch.setattr(reproduce, "_train", train)
    codes["made"] = made
    return codes


def command(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["reproduce.py", *arguments])
    with pytest.raises(SystemExit) as stop:
        reproduce.main()
    return stop.value.code


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.setenv("ROBUSTFORGE_OUTPUTS", str(tmp_path / "outputs"))
    return f"results_dir={tmp_path / 'results'}"


def test_a_table_is_never_then_run_then_stale(trained, here, tmp_path, monkeypatch, capsys):
    results = tmp_path / "results"
    assert state_of(TABLE, "cpu", results).word == "never"
    assert command(monkeypatch, TABLE, "profile=cpu", here) == 0
    assert read_evidence(results / f"{TABLE}.json")["runs"].keys() == {"mnist", "fashion_mnist"}
    state = state_of(TABLE, "cpu", results)
    assert (state.word, state.measured) == ("run", True)
    assert state.when.startswith("2026-01-02")
    monkeypatch.setattr(table_states, "digest_today", lambda overrides: "another")
    state = state_of(TABLE, "cpu", results)
    assert (state.word, state.reason) == ("stale", "settings or source of run 'mnist' changed")


def test_what_the_run_says_of_itself_reaches_the_table(here, monkeypatch, tmp_path):
    """Verdicts of a strict protocol and the time of its stages are in result.json alone, not in the records."""
    result = {"stages": [{"name": "undefended", "key": "k" * 64, "made_in": 120.0}], "strict": True}

    def train(overrides, folder):
        columns = join(
            make_cell("none", "clean", "none", 0.0, [1, 1, 0, 1]), make_cell("none", "fgsm", "end_to_end", 0.1, [0] * 4)
        )
        write_table(read_table(columns), folder / "records.parquet")
        write_json(folder / "result.json", make_result(columns, {"name": "x", "seed": 0, "defense": "none", **result}))
        return 0

    monkeypatch.setattr(reproduce, "_train", train)
    assert command(monkeypatch, TABLE, here) == 0
    content = read_evidence(tmp_path / "results" / f"{TABLE}.json")
    cell = next(cell for cell in content["cells"] if (cell["row"], cell["column"]) == ("eps 0.10", "MNIST"))
    assert cell["adapted_verdict"] == "robust accuracy"
    assert content["seconds"] >= 120


def test_half_a_table_is_in_part(trained, here, tmp_path, monkeypatch):
    kept = []
    monkeypatch.setattr(reproduce, "keep", lambda drawn, folder: kept.append(folder))
    assert command(monkeypatch, TABLE, "--runs", "mnist", here) == 0
    assert kept == [tmp_path / "results" / TABLE]
    state = state_of(TABLE, "cpu", tmp_path / "results")
    assert (state.word, state.reason) == ("in part", "1 of 2 runs; missing: fashion_mnist")
    shutil.rmtree(tmp_path / "outputs")
    assert command(monkeypatch, TABLE, "--runs", "fashion_mnist", here) == 0, "on another machine"
    assert len(kept) == 1, "its figures lack the other run"
    assert state_of(TABLE, "cpu", tmp_path / "results").word == "run"


def test_the_list_tells_states_runs_and_figures(here, monkeypatch, capsys):
    assert command(monkeypatch, "--list", "only=cae/table1*,gmvae/fig3", "profile=cpu", here) == 0
    text = capsys.readouterr().out
    assert "profile=cpu: never" in text
    assert "cae/table1a" in text
    assert "figures:" in text
    assert "memdef" not in text
    assert text.rstrip().endswith("0 run, 0 in part, 0 stale, 3 never")


def test_what_a_table_wants_is_said_before_it_is_run(trained, here, monkeypatch, capsys):
    wants = "wants torchvision's files of SVHN in paths.data_dir"
    assert command(monkeypatch, "--list", "only=gmvae/svhn", "profile=cpu", here) == 0
    assert wants in capsys.readouterr().out
    trained["supervised"] = 1
    assert command(monkeypatch, "all", "only=gmvae/svhn", here) == 1
    assert f"gmvae/svhn: never, about 30.0 min, {wants}" in capsys.readouterr().out


def test_digests_are_remembered_until_the_code_changes(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(remembered, "digest_today", lambda overrides: asked.append(overrides) or "d" * 16)
    path = tmp_path / "digests.json"
    for overrides in (["seed=1"], ["seed=2"], ["seed=1"]):
        with remembered.remembered(path) as digest:
            assert digest(overrides) == "d" * 16
    assert asked == [["seed=1"], ["seed=2"]]
    monkeypatch.setattr(remembered, "_code", lambda: "another")
    with remembered.remembered(path) as digest:
        digest(["seed=1"])
    assert len(asked) == 3
    path.write_text("{")
    with remembered.remembered(path) as digest:
        digest(["seed=1"])
    assert len(asked) == 4, "a damaged file counts for nothing"


def test_all_goes_on_after_a_failure_and_names_it(trained, here, monkeypatch, capsys):
    trained["mnist"] = 1
    assert command(monkeypatch, "all", "only=cae/table1*", here) == 1
    told = capsys.readouterr()
    assert "0 of 2 tables are fresh; 2 to run" in told.out
    assert "Error: 2 of 2 tables failed: cae/table1a, cae/table1b" in told.err
    trained["mnist"] = 0
    trained["made"].clear()
    assert command(monkeypatch, "all", "only=cae/table1a", here) == 0
    assert trained["made"] == ["mnist"], "the other run of the table was finished"
    assert command(monkeypatch, "all", "only=cae/table1a", here) == 0
    assert "1 of 1 tables are fresh; 0 to run" in capsys.readouterr().out
    assert trained["made"] == ["mnist"], "what is fresh is not run again"


def test_runs_that_have_to_be_run_together_are_open(trained, here, tmp_path, monkeypatch):
    assert command(monkeypatch, TABLE, "profile=cpu", here) == 0
    path = tmp_path / "results" / f"{TABLE}.json"
    write_evidence(path, {**read_evidence(path), "together": ["mnist"]})
    state = state_of(TABLE, "cpu", tmp_path / "results")
    assert (state.word, state.reason) == ("in part", "to be run together: mnist")
    assert open_runs(TABLE, "cpu", tmp_path / "results") == ["mnist"]
    trained["made"].clear()
    assert command(monkeypatch, TABLE, "--runs", "missing", here) == 0
    assert trained["made"] == ["mnist"]
    assert state_of(TABLE, "cpu", tmp_path / "results").word == "run"


def test_missing_runs_alone(trained, here, monkeypatch):
    made = trained["made"]
    assert command(monkeypatch, TABLE, "--runs", "missing", here) == 0
    assert made == ["mnist", "fashion_mnist"]
    assert command(monkeypatch, TABLE, "--runs", "missing", here) == 0
    assert made == ["mnist", "fashion_mnist"], "nothing is missing"
    assert command(monkeypatch, TABLE, here) == 0
    assert made == ["mnist", "fashion_mnist"] * 2, "without the word, everything is run"
    monkeypatch.setattr(remembered, "_code", lambda: "another")
    other = "dataset=fashion_mnist"
    monkeypatch.setattr(remembered, "digest_today", lambda given: "another" if other in given else digest_today(given))
    made.clear()
    assert command(monkeypatch, TABLE, "--runs", "missing", here) == 0
    assert made == ["fashion_mnist"], "its settings or source changed"
    monkeypatch.setattr(table_states, "table_digest", lambda spec: "another")
    made.clear()
    assert command(monkeypatch, TABLE, "--runs", "missing", here) == 0
    assert made == ["mnist", "fashion_mnist"], "other cells are shown: they need the records of all runs"


def test_of_other_settings_everything_is_missing(trained, tmp_path, monkeypatch, capsys):
    """The usual result files say nothing about them."""
    monkeypatch.setenv("ROBUSTFORGE_OUTPUTS", str(tmp_path / "outputs"))
    assert command(monkeypatch, "cae/table1b", "seed=1", "--runs", "missing") == 0
    assert trained["made"] == ["mnist", "fashion_mnist"]
    assert command(monkeypatch, "all", "only=cae/table1b", "seed=1") == 0
    assert "0 of 1 tables are fresh; 1 to run" in capsys.readouterr().out
    assert trained["made"] == ["mnist", "fashion_mnist"] * 2


def test_all_survives_a_run_that_was_refused(trained, here, monkeypatch, capsys):
    trained["mnist"] = 2
    assert command(monkeypatch, "all", "only=cae/table1*", here) == 1
    assert "Run 'mnist' was refused" in capsys.readouterr().err


def test_other_settings_leave_the_usual_file_alone(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(reproduce, "results_folder", lambda: tmp_path / "usual")
    monkeypatch.setenv("ROBUSTFORGE_OUTPUTS", str(tmp_path / "outputs"))
    assert command(monkeypatch, TABLE, "seed=1") == 0
    assert not (tmp_path / "usual").exists()
    assert command(monkeypatch, TABLE, "threads=1", "paths.data_dir=/data") == 0
    assert read_evidence(tmp_path / "usual" / f"{TABLE}.json")["overrides"] == []


def test_mistakes_are_sentences(here, monkeypatch, capsys):
    assert command(monkeypatch, "all", "only=nothing/*", here) == 2
    assert "No table fits only=nothing/*" in capsys.readouterr().err
    assert command(monkeypatch, "all", "profile=gpus", here) == 2
    assert "has the profile 'gpus'" in capsys.readouterr().err


def test_result_files_of_the_repository_are_of_tables_that_exist():
    folder = Path(__file__).resolve().parents[2] / "results"
    for path in folder.rglob("*.json"):
        content = read_evidence(path)
        assert content["table"] in tables(), path
        assert content["profile"] in load(content["table"]).profiles, path
