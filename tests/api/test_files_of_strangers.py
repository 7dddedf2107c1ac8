"""Results, sweeps and reports of somebody else are data: nothing in them is built, looked up or believed."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from omegaconf import OmegaConf

import robustforge as rf
from robustforge.cli.sweep import SweepSummary
from robustforge.config.locate import config_folder
from robustforge.config.presets import for_run
from robustforge.config.trust import load_plain
from robustforge.records.schema import SCHEMA as RECORDS
from robustforge.reporting.result import SCHEMA, read_result

ALIASES = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (ALIASES, "holds YAML aliases"),
        ("a: " + "[" * 3_000, "cannot be read as a configuration"),
        ("", "is no configuration"),
        ("a: [1", "cannot be read as a configuration"),
        ("a: !!python/name:os.system", "cannot be read as a configuration"),
        ("a: \0", "cannot be read as a configuration"),
    ],
)
def test_configurations_that_are_none(tmp_path, text, message):
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(rf.UserError, match=message) as refused:
        load_plain(tmp_path / "config.yaml")
    assert str(tmp_path / "config.yaml") in str(refused.value)


@pytest.mark.parametrize(
    "name", ["../../../../../../../../{folder}/evil", "a/b", "a,b", "a b", "", None, 3, ["a"], "x\ny"]
)
def test_the_names_in_a_run_lead_to_no_file(tmp_path, name):
    """``protocol=paper`` asks the run for the name of its protocol, which Hydra then loads and builds."""
    given = name.format(folder=str(tmp_path).lstrip("/")) if isinstance(name, str) else name
    (tmp_path / "evil.yaml").write_text(f"_target_: pathlib.Path.touch\n_args_: [{tmp_path / 'ran'}]\n")
    fine = {"defense_name": "cae", "dataset": {"name": "mnist"}}
    for crafted in ({**fine, "defense_name": given}, {**fine, "dataset": {"name": given}}):
        (tmp_path / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(crafted)))
        with pytest.raises(rf.UserError, match="which is no name: give protocol=<name>"):
            for_run([f"run={tmp_path}", "protocol=paper"], config_folder())
    (tmp_path / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(fine)))
    assert for_run([f"run={tmp_path}", "protocol=paper"], config_folder())[1].startswith("protocol=paper/cae")


def test_the_names_in_a_run_are_not_resolved(tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET_OF_MINE", "cae")
    (tmp_path / "config.yaml").write_text("defense_name: ${oc.env:SECRET_OF_MINE}\ndataset: {name: mnist}\n")
    with pytest.raises(rf.UserError, match="holds the interpolation"):
        for_run([f"run={tmp_path}", "protocol=paper"], config_folder())


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 200_000, '{"schema": 0}', "\x00"])
def test_results_that_are_none(tmp_path, text):
    (tmp_path / "result.json").write_text(text)
    (tmp_path / "records.parquet").write_bytes(b"")
    with pytest.raises(ValueError, match=r"result.json' is"):
        read_result(tmp_path)
    with pytest.raises(ValueError, match=r"result.json' is"):
        rf.Report.load(tmp_path)


def test_damaged_records_are_named(tmp_path):
    (tmp_path / "result.json").write_text(json.dumps({"schema": SCHEMA}))
    (tmp_path / "records.parquet").write_bytes(b"PAR1" + bytes(100) + b"PAR1")
    with pytest.raises(rf.UserError, match=r"records.parquet' cannot be read as parquet"):
        rf.Report.load(tmp_path)


def test_a_sweep_with_damaged_jobs_is_summed_up_all_the_same(tmp_path, caplog, capsys):
    for job, overrides, result in (
        ("a", '["seed=${oc.env:HOME}"]', '{"schema": 1'),
        ("b", '{"no": "list"}', None),
        ("d", '["seed=2"]', None),
        ("c", "[" * 200_000, None),
    ):
        (tmp_path / job).mkdir()
        (tmp_path / job / "overrides.json").write_text(overrides)
        if result:
            (tmp_path / job / "result.json").write_text(result)
    with pytest.raises(SystemExit, match="1"):
        SweepSummary().on_multirun_end(OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path)}}}))
    assert "result.json' is damaged" in caplog.text
    assert caplog.text.count("its job is left out of the summary") == 2
    assert "${oc.env:HOME}" in (tmp_path / "summary.csv").read_text()
    assert "2 runs in" in capsys.readouterr().out


def test_names_in_a_result_are_text(tmp_path):
    """Neither markup of the terminal, which ends in an error where it is not closed, nor of a page."""
    name = "[/red] <script> ${oc.env:HOME}"
    cell = {"system": name, "attack": "clean", "surface": "none", "norm": "none", "eps": 0.0, "rate": None, "n": 4}
    cell |= {"accuracy": 50.0, "interval": [15.0, 85.0], "rejected": 0.0, "violated": [], "indicators": []}
    cell |= {"abstention": None, "verdict": None, "seconds": 1.0, "forwards": 1.0, "backwards": 0.0, "check": ""}
    given = {"schema": SCHEMA, "name": name, "defense": name, "protocol": name, "strict": False, "n_test": 4}
    given |= {"split": "test", "cells": [cell], "worst_case": [], "checks": [], "comparisons": [], "thresholds": []}
    given |= {"random_systems": [], "diagnostics": {}, "stages": [], "objective": 50.0, "objective_of": None}
    given |= {"versions": {}, "code": {}, "reused_from_other_code": [], "seed": 0, "seconds": 1.0}
    (tmp_path / "result.json").write_text(json.dumps(given))
    columns = {one.name: [name if pa.types.is_string(one.type) else 0] for one in RECORDS}
    pq.write_table(pa.table(columns).cast(RECORDS), tmp_path / "records.parquet")
    report = rf.Report.load(tmp_path)
    assert name in str(report)
    assert "<script>" not in report._repr_html_()
