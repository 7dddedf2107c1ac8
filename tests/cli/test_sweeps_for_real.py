"""Sweeps whose jobs are real processes: on two ranks each, by Optuna, by submitit, in folders with odd names. Slow."""

import csv
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from robustforge.config.isolated import clean_environment

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
TINY = (
    "defense=none", "model=lenet", "debug=fast", "dataset.limit_train=64", "dataset.batch_size=32", "attack.steps=1",
    "trainer.enable_progress_bar=false", "protocol.suites.all.attacks={fgsm: {}}",
)  # fmt: skip


def start(*arguments, cwd=ROOT):
    environment = {**clean_environment(), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, str(ROOT / "train.py"), *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=cwd, env=environment, stdout=pipe, stderr=pipe, text=True)


def sweep(*arguments, cwd=ROOT):
    process = start("-m", *TINY, *arguments, cwd=cwd)
    out, err = process.communicate(timeout=600)
    return process.returncode, out, err


def rows(folder):
    return list(csv.DictReader((folder / "summary.csv").open()))


def test_a_grid_on_two_ranks_is_one_tree_and_a_failing_rank_fails_its_job_alone(tmp_path):
    """Facts 1 and 3: ranks replayed the sweep in a second tree; one that failed left the others waiting for ever."""
    place = f"paths.output_dir={tmp_path}"
    code, out, err = sweep("trainer=ddp_cpu", "dataset.batch_size=32,0,16", place)
    assert code == 1, (out, err)
    (folder,) = (tmp_path / "sweeps").iterdir()
    assert [row["state"] for row in rows(folder)] == ["ok", "failed", "ok"]
    assert len(list(folder.glob("*/overrides.json"))) == 3
    assert err.count("Error: dataset.batch_size is 0") == 1, "every rank says it"
    assert "Traceback" not in err
    for path in folder.glob("*/environment.json"):
        config = (path.parent / "config.yaml").read_text()
        assert "devices: 2" in config
    assert out.count("Everything is in") == 2
    assert not [path for path in tmp_path.iterdir() if path.name not in ("sweeps", "store")]
    stages = list((tmp_path / "store").glob("undefended-*/manifest.json"))
    assert {json.loads(path.read_text())["limits"]["processes"] for path in stages} == {2}


def test_optuna_draws_one_trial_for_all_ranks_and_goes_on(tmp_path):
    """Fact 2: each rank drew its own trial, and gradients of different learning rates were averaged."""
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    asked = ("trainer=ddp_cpu", "hydra/sweeper=optuna", "hydra.sweeper.n_trials=2", "hydra.sweeper.n_jobs=1",
             "optimizer.lr=interval(0.001,0.1)", f"paths.output_dir={tmp_path}")  # fmt: skip
    code, out, err = sweep(*asked)
    assert code == 0, (out, err)
    (folder,) = (tmp_path / "sweeps").iterdir()
    found = rows(folder)
    rates = [float(row["optimizer.lr"]) for row in found]
    assert len(set(rates)) == 2
    trained = [(path.parent / "config.yaml").read_text() for path in folder.glob("*/overrides.json")]
    assert all(sum(f"lr: {rate}" in text for text in trained) == 1 for rate in rates), "a rank with a rate of its own"
    best = max(float(row["objective"]) for row in found)
    assert f"best_value: {best}"[:14] in (folder / "optimization_results.yaml").read_text()
    code, out, err = sweep(*asked)
    assert code == 0, (out, err)
    assert out.count("finished by an earlier call") == 2
    assert [float(row["optimizer.lr"]) for row in rows(folder)] == rates


def test_submitit_runs_jobs_beside_each_other(tmp_path):
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    code, out, err = sweep("hydra/launcher=submitit_local", "seed=0,1", f"paths.output_dir={tmp_path}")
    assert code == 0, (out, err)
    (folder,) = (tmp_path / "sweeps").iterdir()
    assert [row["state"] for row in rows(folder)] == ["ok", "ok"]
    assert (folder / "summary_over_seeds.csv").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_jobs_of_submitit_end_with_their_sweep(tmp_path, number):
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    long = ("~debug", "defense.training.epochs=4000", "store.resume_every=0")
    process = start("-m", *TINY, *long, "hydra/launcher=submitit_local", "seed=0,1", f"paths.output_dir={tmp_path}")
    deadline = time.time() + 300
    while len(list((tmp_path / "store").glob(".partial/undefended-*/resume.ckpt"))) < 2:
        assert process.poll() is None, process.communicate()
        assert time.time() < deadline
        time.sleep(0.05)
    assert len(processes_with(tmp_path)) >= 1 + 2 * 3, "the sweep, and of each job: submitit's two processes, and ours"
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    said = "SIGTERM" if number == signal.SIGTERM else "Ctrl-C"
    assert process.returncode == 128 + number, (out, err)
    assert err.endswith(f"Stopped by {said}. The same command continues where this one stopped.\n"), err
    assert not processes_with(tmp_path)


def processes_with(folder):
    """Numbers of the processes that have the folder's name in their command line."""
    found = {path.parent.name: path for path in Path("/proc").glob("[0-9]*/cmdline")}
    return [number for number, path in found.items() if str(folder).encode() in read(path)]


def read(path):
    try:
        return path.read_bytes()
    except OSError:  # it has ended meanwhile
        return b""


@pytest.mark.parametrize("name", ["it's", 'a=b,c [1] "d" 100%'])
def test_a_sweep_may_live_in_a_folder_of_any_name(tmp_path, name):
    here = tmp_path / name
    here.mkdir()
    code, out, err = sweep("seed=0,1", cwd=here)
    assert code == 0, (out, err)
    (folder,) = (here / "outputs" / "sweeps").iterdir()
    assert [row["state"] for row in rows(folder)] == ["ok", "ok"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
@pytest.mark.parametrize("kind", ["sweep", "ranks", "sweep of ranks"])
def test_a_signal_to_the_parent_ends_all_and_the_command_goes_on(tmp_path, kind, number):
    arguments = [*TINY, "~debug", "protocol.n_test=8", "defense.training.epochs=400", f"paths.output_dir={tmp_path}",
                 "store.resume_every=0"]  # fmt: skip
    arguments += ["seed=0,1", "hydra.mode=MULTIRUN"] if "sweep" in kind else []
    arguments += ["trainer=ddp_cpu"] if "ranks" in kind else []
    process = start(*arguments)
    deadline = time.time() + 300
    while not list((tmp_path / "store").glob(".partial/undefended-*/resume.ckpt")):
        assert process.poll() is None, process.communicate()
        assert time.time() < deadline
        time.sleep(0.05)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number, (out, err)
    said = "SIGTERM" if number == signal.SIGTERM else "Ctrl-C"
    assert err == f"Stopped by {said}. The same command continues where this one stopped.\n"
    again = start(*arguments)
    waited = time.time() + 300
    while "continuing undefended" not in (line := again.stdout.readline()):
        assert line, again.communicate()
        assert time.time() < waited
    again.send_signal(signal.SIGTERM)
    assert again.wait(60) == 143
