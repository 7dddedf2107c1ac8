"""A sweep's command: one folder, finished jobs are not run again, failed ones are named. Its jobs are stand-ins."""

import csv
import json
import os
import signal
import sys
from pathlib import Path

import pytest

from robustforge.config import isolated, sweeps
from robustforge.interruption import Stopped
from robustforge.reporting.result import SCHEMA
from robustforge.reporting.text import MISSING

HALF = 4.303 * 1.0 / 3**0.5  # Student's t, two degrees of freedom, standard deviation 1


def result(accuracy):
    cell = {
        "system": "none", "attack": "clean", "surface": "none", "norm": None, "eps": None, "n": 100, "rate": None,
        "accuracy": accuracy, "interval": [accuracy - 1, accuracy + 1],
    }  # fmt: skip
    return {
        "schema": SCHEMA,
        "defense": "none",
        "cells": [cell],
        "worst_case": [],
        "objective": accuracy,
        "objective_of": None,
    }


@pytest.fixture
def jobs(monkeypatch):
    """Seeds of the jobs that were run; those in ``fails`` end with an exit code."""

    class Jobs:
        ran: list[str]
        fails: dict[str, int]

    found = Jobs()
    found.ran, found.fails = [], {}

    def together(commands, _environments):
        ((*_, place),) = commands
        (seed,) = [item.partition("=")[2] for item in commands[0] if item.startswith("seed=")]
        found.ran.append(seed)
        code = found.fails.get(seed, 0)
        if isinstance(code, BaseException):
            raise code
        if not code:
            folder = Path(place.removeprefix("hydra.run.dir='").removesuffix("'"))
            (folder / "result.json").write_text(json.dumps(result(50.0 + float(seed))))
        return code

    monkeypatch.setattr(isolated, "run_together", together)
    return found


@pytest.mark.slow  # five whole sweeps
def test_a_second_call_runs_what_failed_and_nothing_else(command, tmp_path, jobs):
    sweep = ("-m", "defense=none", "seed=0,1,2", f"paths.output_dir={tmp_path}")
    jobs.fails = {"1": 2}
    first = command(*sweep)
    assert (first.code, jobs.ran) == (1, ["0", "1", "2"])
    (said,) = first.err.strip().splitlines()
    assert said.startswith("Error: 1 of 3 jobs failed: ")
    assert "seed-1" in said
    assert "seed-0" not in said
    assert said.endswith("The same command runs only these again.")
    (folder,) = (tmp_path / "sweeps").iterdir()
    seeds = list(csv.DictReader((folder / "summary_over_seeds.csv").open()))
    assert [row["seeds"] for row in seeds] == ["2 of 3"]

    jobs.ran.clear()
    jobs.fails = {}
    second = command(*sweep)
    assert (second.code, second.err, jobs.ran) == (0, "", ["1"])
    assert [path for path in (tmp_path / "sweeps").iterdir()] == [folder]
    rows = list(csv.DictReader((folder / "summary.csv").open()))
    assert [(row["seed"], row["state"]) for row in rows] == [("0", "ok"), ("1", "ok"), ("2", "ok")]
    (row,) = csv.DictReader((folder / "summary_over_seeds.csv").open())
    assert row == {
        "seeds": "3 of 3",
        "clean": f"51.00 ± {HALF:.2f}",
        "worst case": MISSING,
        "objective": f"51.00 ± {HALF:.2f}",
    }

    jobs.ran.clear()
    assert command(*sweep).code == 0
    assert jobs.ran == []

    (broken,) = [path for path in folder.glob("*/result.json") if "seed-2" in path.parent.name]
    broken.write_text("{")
    assert command(*sweep).code == 0
    assert jobs.ran == ["2"]


@pytest.mark.slow
@pytest.mark.parametrize("change", ["source", "a value from elsewhere"])
def test_a_job_that_has_become_another_one_is_run_again(command, tmp_path, jobs, monkeypatch, change):
    monkeypatch.setenv("ROBUSTFORGE_DATA", "/one")
    sweep = ("-m", "defense=none", "seed=0,1", f"paths.output_dir={tmp_path}", "dataset.name=${oc.env:NAME,one}")
    assert command(*sweep).code == 0
    monkeypatch.setenv("ROBUSTFORGE_DATA", "/two")  # where data lies decides no number
    assert command(*sweep).code == 0
    assert jobs.ran == ["0", "1"]
    if change == "source":
        from robustforge import fingerprint

        monkeypatch.setattr(fingerprint, "code_state", lambda: {"source": "other"})
    else:
        monkeypatch.setenv("NAME", "two")
    assert command(*sweep).code == 0
    assert jobs.ran == ["0", "1"] * 2


def test_a_signal_ends_the_sweep_which_then_goes_on(command, tmp_path, jobs):
    sweep = ("-m", "defense=none", "seed=0,1,2", f"paths.output_dir={tmp_path}")
    jobs.fails = {"1": Stopped(signal.SIGTERM)}
    stopped = command(*sweep)
    assert (stopped.code, jobs.ran) == (143, ["0", "1"])
    assert stopped.err == "Stopped by SIGTERM. The same command continues where this one stopped.\n"
    jobs.fails = {}
    jobs.ran.clear()
    assert command(*sweep).code == 0
    assert jobs.ran == ["1", "2"]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (["seed=0,1"], ["seed=0,1", "paths.output_dir=/x", "logger=wandb", "tags=[a]"], True),
        (["seed=0,1", "defense=none"], ["defense=none", "seed=0,1"], True),
        (["seed=0,1"], ["seed=0,1,2"], False),
        (["seed=0,1"], ["seed=0,1", "defense=none"], False),
        (["optimizer.lr=interval(0,1)"], ["optimizer.lr=interval(0,1)", "hydra.sweeper.n_trials=3"], False),
    ],
)
def test_a_sweep_is_named_by_what_is_swept(one, other, same):
    def folder(arguments):
        (item,) = [item for item in sweeps.completed(["-m", *arguments]) if item.startswith("hydra.sweep.dir=")]
        return item

    assert (folder(one) == folder(other)) is same


def test_what_is_no_sweep_or_has_its_folder_stays_as_it_is():
    for arguments in (["seed=1"], ["-m", "seed=1,2", "hydra.sweep.dir=/mine"], ["--help"]):
        assert sweeps.completed(arguments) == arguments


def test_optuna_maximizes_and_starts_from_a_seed():
    asked = ["hydra/sweeper=optuna", "-m", "optimizer.lr=interval(0.001,0.1)"]
    found = sweeps.completed(asked)
    assert {"hydra.sweeper.direction=maximize", "hydra.sweeper.sampler.seed=0"} <= set(found)
    mine = sweeps.completed([*asked, "hydra.sweeper.sampler.seed=4", "hydra.sweeper.direction=minimize"])
    assert [item for item in mine if item.startswith(("hydra.sweeper.d", "hydra.sweeper.s"))] == [
        "hydra.sweeper.sampler.seed=4", "hydra.sweeper.direction=minimize",
    ]  # fmt: skip
    grid = sweeps.completed([*asked, "hydra/sweeper/sampler=grid"])
    assert not any("sampler.seed" in item for item in grid)


def test_the_job_of_a_launcher_knows_the_resolvers():
    """submitit's process imports the entry module and nothing before it."""
    import subprocess

    text = "import robustforge.cli.train, omegaconf; print(omegaconf.OmegaConf.has_resolver('run_folder'))"
    done = subprocess.run(
        [sys.executable, "-c", text], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    assert done.stdout.strip() == "True"


def test_a_result_of_another_version_is_a_failed_job_and_not_a_warning(command, tmp_path, jobs, monkeypatch):
    monkeypatch.setitem(result.__globals__, "SCHEMA", 0)
    answer = command("-m", "defense=none", "seed=0,1", f"paths.output_dir={tmp_path}")
    assert answer.code == 1
    assert "2 of 2 jobs failed" in answer.err
