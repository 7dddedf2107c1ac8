"""Every file of conf/reproduce: its runs compose in every profile, its rows and columns are the paper's."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from robustforge.cli.reproduce import load, overrides_of, tables
from robustforge.reporting.paper import list_paper_tables, load_paper_table, paper_row, paper_value
from robustforge.types import UserError

FOLDER = Path(__file__).resolve().parents[2] / "conf" / "reproduce"
NAMES = tables()
CASES = [
    (name, run, profile) for name in NAMES for run in load(name)["runs"] for profile in load(name)["profiles"]
]  # fmt: skip


def test_every_file_is_listed():
    assert {FOLDER / f"{name}.yaml" for name in NAMES} == set(FOLDER.rglob("*.yaml"))
    assert len(NAMES) >= 2


def test_an_unknown_table_is_answered_with_the_known_ones():
    with pytest.raises(UserError, match="memory_defense/table1"):
        load("memory_defense/table0")


@pytest.mark.parametrize("name", NAMES)
def test_rows_and_columns_are_the_papers(name):
    spec = load(name)
    assert spec["paper_table"] in list_paper_tables()
    paper = load_paper_table(spec["paper_table"])
    assert set(spec["profiles"]) == {"cpu", "paper"}
    for profile in spec["profiles"].values():
        assert profile["note"].strip()
    labels = [row["label"] for row in spec["rows"]]
    assert len(set(labels)) == len(labels)
    numbers = 0
    for row in spec["rows"]:
        assert "run" not in row or row["run"] in spec["runs"], row["label"]
        theirs = paper_row(paper, row["paper_row"])
        for column in spec["columns"]:
            value = paper_value(theirs, column["paper_key"], column.get("paper_index"))
            numbers += value is not None
    assert numbers, "the paper prints none of these cells"
    assert {row["run"] for row in spec["rows"] if "run" in row} == set(spec["runs"]), "a run that no row shows"


@pytest.mark.parametrize(("name", "run", "profile"), CASES, ids=lambda part: str(part))
def test_run_composes_and_covers_its_cells(compose, name, run, profile):
    spec = load(name)
    cfg = compose(*overrides_of(spec, run, profile))
    plain = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    attacks = {a["name"] for suite in plain["protocol"]["suites"].values() for a in suite["attacks"].values()}
    budgets = [threat["eps"] for threat in plain["protocol"]["budgets"]]
    for column in spec["columns"]:
        assert column["attack"] == "clean" or column["attack"] in attacks
        assert "eps" not in column or any(abs(column["eps"] - eps) < 1e-6 for eps in budgets)
    # what a row reads must be what its run attacks
    named = {s for suite in plain["protocol"]["suites"].values() for s in suite.get("surfaces") or ()}
    everything = any("surfaces" in suite and suite["surfaces"] is None for suite in plain["protocol"]["suites"].values())
    for row in spec["rows"]:
        if row.get("run") == run and row["system"] == cfg.defense_name:
            assert everything or row["paper_surface"] in named, row["label"]


def test_the_two_profiles_differ():
    for name in NAMES:
        spec = load(name)
        run = next(iter(spec["runs"]))
        assert overrides_of(spec, run, "cpu") != overrides_of(spec, run, "paper")
