"""Where metrics go, and how a run ends there. Nothing here reaches a network: W&B is offline."""

import csv
import os
import time
from pathlib import Path

import pytest

from robustforge.cli import pipeline
from robustforge.cli.loggers import RunLoggers, Told
from robustforge.types import UserError

FIT = (
    "defense=none", "model=lenet", "~debug", "protocol.n_test=8", "defense.training.epochs=2", "attack.steps=1",
    "protocol.suites.all.attacks={fgsm: {}, bim: {steps: 1}}",
)  # fmt: skip


@pytest.fixture
def finished(monkeypatch):
    """Exit codes that wandb.finish was called with; the run is really finished too."""
    import wandb

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    codes, finish = [], wandb.finish

    def recording(exit_code=None, **rest):
        codes.append(exit_code)
        finish(exit_code=exit_code, **rest)

    monkeypatch.setattr(wandb, "finish", recording)
    return codes


@pytest.mark.usefixtures("quiet_figures")
def test_csv_is_always_written_and_tensorboard_when_asked_for(train_run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = train_run(*FIT, "logger=tensorboard")
    (metrics,) = run.folder.glob("metrics/undefended/version_*/metrics.csv")
    rows = list(csv.DictReader(metrics.open()))
    losses = [float(row["undefended/train/loss"]) for row in rows if row["undefended/train/loss"]]
    assert len(losses) == 2  # one an epoch
    accuracies = [float(row["undefended/val/accuracy"]) for row in rows if row["undefended/val/accuracy"]]
    assert len(accuracies) == 2
    assert all(0 <= value <= 1 for value in accuracies)

    def scalars(folder):
        board = EventAccumulator(str(folder))
        board.Reload()
        return {tag: [event.value for event in board.Scalars(tag)] for tag in board.Tags()["scalars"]}

    (stage,) = run.folder.glob("tensorboard/undefended/version_*")
    assert scalars(stage)["undefended/train/loss"] == pytest.approx(losses, rel=1e-5)
    (result,) = run.folder.glob("tensorboard/result/version_*")
    assert scalars(result)["objective"] == pytest.approx([run.objective])


@pytest.mark.usefixtures("quiet_figures")
def test_wandb_offline_writes_a_run_and_ends_it_well(train_run, finished):
    run = train_run(*FIT, "logger=wandb", "logger.offline=true", "tags=[a, b]")
    assert finished == [0]
    (binary,) = run.folder.glob("wandb/offline-run-*/run-*.wandb")
    identity = (run.folder / "wandb_id.txt").read_text().strip()
    assert binary.name == f"run-{identity}.wandb"
    words = (b"undefended/train/loss", b"accuracy/none/clean", b"objective")
    deadline = time.monotonic() + 20  # wandb's own process may still be writing when finish() has returned
    while time.monotonic() < deadline and not all(word in binary.read_bytes() for word in words):
        time.sleep(0.1)
    for word in words:
        assert word in binary.read_bytes()
    # csv beside it
    assert list(run.folder.glob("metrics/undefended/version_*/metrics.csv"))
    # the run again, in its folder, is the same run in the dashboard
    train_run(*FIT, "logger=wandb", "logger.offline=true", "tags=[a, b]")
    assert (run.folder / "wandb_id.txt").read_text().strip() == identity
    assert finished == [0, 0]


@pytest.mark.usefixtures("quiet_figures")
def test_wandb_is_told_that_a_run_failed(train_run, finished, monkeypatch, tmp_path):
    def broken(*_):
        raise RuntimeError("in the middle of training")

    monkeypatch.setattr(pipeline, "attack_and_report", broken)
    with pytest.raises(RuntimeError, match="in the middle"):
        train_run(*FIT, "logger=wandb", "logger.offline=true")
    assert len(finished) == 1
    assert finished[0] != 0
    assert not (tmp_path / "run" / "result.json").exists()
    import wandb

    assert wandb.run is None


@pytest.mark.parametrize("exit_code", [0, 1])
def test_finish_hands_on_the_exit_code_and_only_for_wandb(monkeypatch, tmp_path, exit_code):
    import wandb

    codes = []
    monkeypatch.setattr(wandb, "finish", lambda exit_code: codes.append(exit_code))
    loggers = RunLoggers({"kind": "csv"}, tmp_path, Told("name"))
    loggers.finish(exit_code)
    assert codes == []
    loggers.wandb = object()
    loggers.finish(exit_code)
    assert codes == [exit_code]


@pytest.mark.usefixtures("quiet_figures")
@pytest.mark.parametrize("where", ["_stages", "attack_and_report"])
def test_a_run_that_raises_is_finished_with_a_failure(train_run, monkeypatch, where):
    codes = []
    monkeypatch.setattr(RunLoggers, "finish", lambda self, code: codes.append(code))

    def broken(*_, **__):
        raise RuntimeError("in the middle")

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, where, broken)
        with pytest.raises(RuntimeError, match="in the middle"):
            train_run(*FIT)
    assert codes == [1]
    train_run(*FIT)
    assert codes == [1, 0]


def test_an_unknown_kind_is_refused(tmp_path):
    with pytest.raises(UserError, match="tensorboard"):
        RunLoggers({"kind": "paper"}, tmp_path, Told("name"))
    assert not os.listdir(tmp_path)


def test_every_kind_has_its_config():
    from robustforge.config.logger_settings import KINDS

    folder = Path(__file__).resolve().parents[2] / "conf" / "logger"
    assert {path.stem for path in folder.glob("*.yaml")} == set(KINDS)
