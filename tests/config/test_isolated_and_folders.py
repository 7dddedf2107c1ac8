"""What fresh processes inherit, and what run folders are called."""

import json
import re

import pytest
from omegaconf import OmegaConf

from robustforge.cli.sweep import SweepSummary
from robustforge.config import isolated
from robustforge.config.resolvers import fraction, register, run_folder


def test_clean_environment_forgets_ranks_and_nothing_else(monkeypatch):
    ranks = ("LOCAL_RANK", "RANK", "WORLD_SIZE", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT", "PL_GLOBAL_SEED")
    for name in ranks:
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("MY_RANK", "1")
    environment = isolated.clean_environment()
    assert not set(ranks) & set(environment)
    assert environment["OMP_NUM_THREADS"] == environment["MY_RANK"] == "1"


def test_launched_by_us_needs_a_rank_of_several(monkeypatch):
    for name in isolated.RANK_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    assert not isolated.launched_by_us()
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert not isolated.launched_by_us()
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert not isolated.launched_by_us()
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert isolated.launched_by_us()


def test_forwarded_keeps_what_a_job_needs():
    kept = ["hydra.searchpath=[file:///conf]", "hydra.verbose=true", "++hydra.job.env_set.A=1"]
    dropped = [
        "hydra.mode=MULTIRUN", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "hydra/sweeper=optuna",
        "+hydra.sweeper.params={seed: 1}", "hydra.sweep.dir=there", "~hydra.sweep.subdir",
    ]  # fmt: skip
    assert isolated.forwarded([*kept, *dropped]) == kept


def job(monkeypatch, folder, code, result=None):
    seen = []

    def run(commands, environments):
        seen.append((*commands, *environments))
        if result is not None:
            (folder / "result.json").write_text(json.dumps(result))
        return code

    monkeypatch.setattr(isolated, "run_together", run)
    objective = isolated.run_job("m", ["seed=1", "a=b"], ["hydra.mode=MULTIRUN", "hydra.verbose=true"], folder, "key")
    return objective, seen[0]


def test_a_job_is_a_fresh_process_in_its_own_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("LOCAL_RANK", "1")
    folder = tmp_path / "a=1,b=2"
    objective, (command, env) = job(monkeypatch, folder, 0, {"objective": 41.5})
    assert objective == 41.5
    assert command[1:] == [
        "-m",
        "m",
        "seed=1",
        "a=b",
        "hydra.verbose=true",
        "hydra.mode=RUN",
        f"hydra.run.dir='{folder}'",
    ]
    assert "LOCAL_RANK" not in env
    assert json.loads((folder / "overrides.json").read_text()) == ["seed=1", "a=b"]
    assert not (folder / "FAILED").exists()


def test_a_failed_job_is_marked_and_the_mark_goes_when_it_succeeds(monkeypatch, tmp_path):
    assert job(monkeypatch, tmp_path, 2)[0] == float("-inf")
    assert (tmp_path / "FAILED").read_text().strip() == "exit code 2"
    assert job(monkeypatch, tmp_path, 0, {"objective": 1})[0] == 1
    assert not (tmp_path / "FAILED").exists()


@pytest.mark.parametrize("result", [{"objective": None}, None], ids=["no objective", "not evaluated"])
def test_a_job_without_a_number_does_not_end_the_sweep(monkeypatch, tmp_path, result):
    """``-m evaluate=false`` leaves no result.json."""
    assert job(monkeypatch, tmp_path, 0, result)[0] == float("-inf")


def test_the_summary_counts_failed_jobs(tmp_path, capsys):
    for name, mark in (("one", "FAILED"), ("two", None)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "overrides.json").write_text(json.dumps([f"seed={name}"]))
        if mark:
            (tmp_path / name / mark).write_text("exit code 2\n")
    with pytest.raises(SystemExit) as ended:
        SweepSummary().on_multirun_end(OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path)}}}))
    assert ended.value.code == 1
    rows = (tmp_path / "summary.csv").read_text().splitlines()
    assert len(rows) == 3
    assert all("failed" in row for row in rows[1:])
    assert "failed" in (tmp_path / "summary.md").read_text()
    shown = capsys.readouterr()
    assert "failed" in shown.out
    assert shown.err.startswith("Error: 2 of 2 jobs failed: ")


def test_the_summary_says_what_was_trained_only(monkeypatch, tmp_path):
    """``-m evaluate=false``: the exit code decides."""
    job(monkeypatch, tmp_path / "fine", 0)
    job(monkeypatch, tmp_path / "broken", 1)
    with pytest.raises(SystemExit):
        SweepSummary().on_multirun_end(OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path)}}}))
    rows = (tmp_path / "summary.csv").read_text().splitlines()[1:]
    assert sorted(row.rpartition(",")[2] for row in rows) == ["failed", "trained"]


# ---- names of run folders -------------------------------------------------------------------------------------------

NAMES = [
    "", "seed=1", "seed=2", "seed=1,model=lenet", "model=lenet,seed=1", "a=/x/y", "a=_x_y", "a={b: 1}", "a={b: 2}",
    "threat.eps=0.1", "threat.eps=0.10", "tags=[a,b]", "tags=[a_b]", "x=" + "y" * 300, "x=" + "y" * 299 + "z", 
    "a=b-c", "a=-1", "a=1",
    "a=é",
]  # fmt: skip


def test_folder_names_are_safe_short_and_the_same_every_time():
    for name in NAMES:
        folder = run_folder(name)
        assert folder == run_folder(name)
        assert re.fullmatch(r"[A-Za-z0-9=.,_-]+", folder)
        assert len(folder) < 100
        assert not folder.startswith(("-", "."))


def test_different_overrides_never_share_a_folder():
    folders = {}
    for name in NAMES:
        assert run_folder(name) not in folders, f"{name!r} and {folders.get(run_folder(name))!r}"
        folders[run_folder(name)] = name


def test_resolvers_work_in_a_config():
    register()
    cfg = OmegaConf.create({"eps": "${frac:8,255}", "dir": "${run_folder:'seed=1'}"})
    assert cfg.eps == pytest.approx(8 / 255)
    assert cfg.dir == run_folder("seed=1")
    assert fraction(1, 4) == 0.25
