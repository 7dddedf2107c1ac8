"""Real processes: killed and continued, swept, run on two ranks, one rank failing. All slow."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file

from robustforge.config.isolated import clean_environment

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
FEW = (
    "model=lenet", "dataset.limit_train=128", "dataset.batch_size=32", "protocol.n_test=40", "attack.steps=3",
    "protocol.suites.all.attacks.bim.steps=2", "trainer.enable_progress_bar=false",
)  # fmt: skip
SHORT = ("defense=memdef", "stack=short", "defense.undefended_training.epochs=1", "stack.settings.training.epochs=1")


def start(*arguments, **places):
    command = [sys.executable, "train.py", *arguments, *(f"{key}={value}" for key, value in places.items())]
    environment = {**clean_environment(), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=pipe, stderr=pipe, text=True)


def finish(process, timeout=300):
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return process.returncode, out, err


def weights(store, stage):
    (path,) = Path(store).glob(f"{stage}-*/weights.safetensors")
    return load_file(path)


def answers(folder):
    """(system, attack, surface, eps, index) -> (prediction, success); none of them twice."""
    table = pq.read_table(folder / "records.parquet").to_pydict()
    keys = list(zip(*(table[name] for name in ("system", "attack", "surface", "eps", "index")), strict=True))
    assert len(set(keys)) == len(keys), "a sample was recorded twice in a cell"
    return dict(zip(keys, zip(table["prediction"], table["success"], strict=True), strict=True))


def test_a_killed_run_continues_to_the_same_weights(tmp_path):
    run = ("defense=none", *FEW[:1], *FEW[3:], "dataset.batch_size=64", "defense.training.epochs=25",
           "store.resume_every=0")  # fmt: skip

    def places(name):
        return {"paths.output_dir": tmp_path / name, "hydra.run.dir": tmp_path / name / "run"}

    process = start(*run, **places("killed"))
    found, deadline = [], time.time() + 200
    while not found and time.time() < deadline:
        found = list((tmp_path / "killed" / "store" / ".partial").glob("undefended-*/resume.ckpt"))
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    assert found, "no resume point within 200 s"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not list((tmp_path / "killed" / "store").glob("undefended-*")), "the stage was over: too few epochs"
    assert not (tmp_path / "killed" / "run" / "result.json").exists()

    code, out, err = finish(start(*run, **places("killed")))
    assert code == 0, err
    assert "continuing undefended from its last resume point" in out
    code, whole, err = finish(start(*run, **places("whole")))
    assert code == 0, err
    assert "continuing" not in whole

    ours, theirs = (weights(tmp_path / name / "store", "undefended") for name in ("killed", "whole"))
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[key].numpy(), theirs[key].numpy()) for key in ours)
    one, two = (pq.read_table(tmp_path / name / "run" / "records.parquet").to_pydict() for name in ("killed", "whole"))
    assert one["prediction"] == two["prediction"]
    assert not list((tmp_path / "killed" / "store" / ".partial").glob("*/*")), "what was left of the killed run"


def test_a_sweep_shares_its_selector_and_survives_a_failing_job(tmp_path):
    sweep = tmp_path / "sweep"
    arguments = ("-m", "defense.memory_size=20,55,50", *SHORT, "selector.training.epochs=1", "seed=0", *FEW)
    code, out, err = finish(start(*arguments, **{"paths.output_dir": tmp_path, "hydra.sweep.dir": sweep}), 500)
    folders = sorted(path.parent for path in sweep.glob("*/overrides.json"))
    assert len(folders) == 3, (out, err)
    assert (code, "Traceback" in err) == (1, False), err
    assert "1 of 3 jobs failed" in err
    by_size = {}
    for folder in folders:
        (size,) = [item for item in json.loads((folder / "overrides.json").read_text()) if "memory_size" in item]
        by_size[int(size.partition("=")[2])] = folder

    # the job that cannot be is recorded as failed, and the one after it was run
    assert (by_size[55] / "FAILED").read_text().startswith("exit code 2")
    assert not (by_size[55] / "result.json").exists()
    assert "55" in err
    assert "Traceback" not in err

    results = {size: json.loads((by_size[size] / "result.json").read_text()) for size in (20, 50)}
    stages = {size: {stage["name"]: stage for stage in results[size]["stages"]} for size in results}
    for shared in ("undefended", "selector"):
        assert stages[20][shared]["key"] == stages[50][shared]["key"]
        assert (stages[20][shared]["reused"], stages[50][shared]["reused"]) == (False, True)
        assert len(list((tmp_path / "store").glob(f"{shared}-*"))) == 1
    assert stages[20]["stack"]["key"] != stages[50]["stack"]["key"]
    assert not stages[50]["stack"]["reused"]

    rows = list(csv.DictReader((sweep / "summary.csv").open()))
    assert [row["defense.memory_size"] for row in rows] == ["20", "55", "50"]
    assert [row["state"].split(":")[0] for row in rows] == ["ok", "failed", "ok"]
    for size, row in ((20, rows[0]), (50, rows[2])):
        assert float(row["objective"]) == pytest.approx(results[size]["objective"], abs=0.005)
    assert "failed" in (sweep / "summary.md").read_text()
    assert "failed" in out
    assert str(sweep) in out.replace("\n", "")


def test_two_ranks_make_each_record_once_and_agree_with_one_process(tmp_path):
    run = (*SHORT, "selector=offline", "selector.training.epochs=1", "selector.attack.steps=2",
           "defense.memory_size=20", "protocol.n_test=201", *(i for i in FEW if "n_test" not in i))  # fmt: skip
    pair = {"paths.output_dir": tmp_path, "hydra.run.dir": tmp_path / "pair"}
    code, out, err = finish(start(*run, "trainer=ddp_cpu", **pair), 500)
    assert code == 0, err[-3000:]

    result = json.loads((tmp_path / "pair" / "result.json").read_text())
    records = answers(tmp_path / "pair")
    images = {index for *_, index in records}
    assert len(images) == 201  # odd: a sampler that pads would evaluate one image twice
    cells = {key[:-1] for key in records}
    assert set(records) == {(*cell, index) for cell in cells for index in images}
    for stage in result["stages"]:
        assert len(list((tmp_path / "store").glob(f"{stage['name']}-*/manifest.json"))) == 1
    (crafted,) = (tmp_path / "store").glob("adversarial_set-*/images.npy")
    assert np.load(crafted).any(axis=(1, 2, 3)).all(), "an image that neither rank crafted"
    assert out.count("Everything is in") == 1, "every rank reports"

    # the same weights in one process, whose stages would have other keys; finished cells are not among what is copied
    for stage in result["stages"]:
        folder = f"{stage['name']}-{stage['key'][:16]}"
        shutil.copytree(tmp_path / "store" / folder, tmp_path / "copied" / folder)
    alone = tmp_path / "alone.py"
    alone.write_text(
        "import sys\n"
        "from robustforge.training import runner\n"
        f"keys = {dict((s['name'], s['key']) for s in result['stages'])!r}\n"
        "runner.key_of = lambda description: keys[description['stage']]\n"
        "from robustforge.cli.train import main\n"
        "main()\n"
    )
    command = [
        sys.executable,
        str(alone),
        *run,
        f"hydra.run.dir={tmp_path / 'one'}",
        f"paths.store_dir={tmp_path / 'copied'}",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300,
                          env={**clean_environment(), "OMP_NUM_THREADS": "1"})  # fmt: skip
    assert done.returncode == 0, done.stderr
    single = json.loads((tmp_path / "one" / "result.json").read_text())
    assert all(stage["reused"] for stage in single["stages"])
    other = answers(tmp_path / "one")
    assert set(other) == set(records)
    for k in (0, 1):  # the prediction, the success
        assert np.mean([records[key][k] != other[key][k] for key in records]) <= 0.002


def test_a_failing_rank_does_not_hang(tmp_path):
    began = time.time()
    process = start("trainer=ddp_cpu", "defense.memory_size=55", *FEW, **{"paths.output_dir": tmp_path})
    code, _, err = finish(process, 400)
    assert code == 2
    assert time.time() - began < 400
    assert "55" in err
    assert len(err.strip().splitlines()) == 1, "every rank says it"


def test_one_rank_killed_ends_the_other(tmp_path):
    run = ("defense=none", *FEW, "defense.training.epochs=2000", "store.resume_every=0")
    process = start(*run, "trainer=ddp_cpu", **{"paths.output_dir": tmp_path})
    found, deadline = [], time.time() + 200
    while not found and time.time() < deadline:
        found = list((tmp_path / "store" / ".partial").glob("*/resume.ckpt"))
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    assert found
    ranks = [pid for pid in _descendants(process.pid) if b"LOCAL_RANK=1" in Path(f"/proc/{pid}/environ").read_bytes()]
    assert ranks
    os.kill(ranks[0], signal.SIGKILL)
    code, _, _ = finish(process, 120)
    assert code != 0
    assert not _descendants(process.pid)


def _descendants(pid):
    """Processes below ``pid``, by /proc."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            after = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if after[0] != "Z":
            parents[int(path.parent.name)] = int(after[1])
    found, level = [], {pid}
    while level:
        level = {child for child, parent in parents.items() if parent in level}
        found += level
    return found


@pytest.mark.parametrize("folders", [("one", "two"), ("same", "same")])
def test_two_runs_at_once_share_stages_and_cells(tmp_path, folders):
    """Same command, same store, with the same run folder or another: each product and cell is made once."""
    places = {"paths.output_dir": tmp_path, "paths.store_dir": tmp_path / "store"}
    command = ("defense=memdef", "stack=short", *FEW, "defense.undefended_training.epochs=1")
    command += ("stack.settings.training.epochs=1", "threads=1")
    runs = [start(*command, **places, **{"hydra.run.dir": tmp_path / folder}) for folder in folders]
    told = [finish(run) for run in runs]
    assert [code for code, *_ in told] == [0, 0], told
    said = "".join(out + err for _, out, err in told)
    assert "which another run is making: process " in said
    assert "Traceback" not in said
    assert "damaged" not in said
    one, two = (answers(tmp_path / folder) for folder in folders)
    assert one == two
    assert not list((tmp_path / "store").rglob("*.damaged-*"))
    assert not list((tmp_path / "store").rglob("*.holder"))
    alone = start(
        *command, **{**places, "paths.store_dir": tmp_path / "alone", "hydra.run.dir": tmp_path / "alone-run"}
    )
    assert finish(alone)[0] == 0
    assert answers(tmp_path / "alone-run") == one
