"""SIGTERM and Ctrl-C end a command with the exit code that schedulers expect, and one sentence. In this process."""

import os
import signal

import pytest

from robustforge.attacks.bim import BIM
from robustforge.cli import pipeline
from robustforge.config import slurm
from robustforge.defenses.base import Defense
from robustforge.interruption import Stopped, check, listening

TINY = (
    "defense=none", "model=lenet", "~debug", "dataset.limit_train=64", "dataset.batch_size=32", "protocol.n_test=8",
    "defense.training.epochs=3", "store.resume_every=0", "trainer.enable_progress_bar=false",
    "protocol.suites.all.attacks={fgsm: {}, bim: {steps: 1}}",
)  # fmt: skip
SENTENCE = {
    signal.SIGTERM: "Stopped by SIGTERM. The same command continues where this one stopped.\n",
    signal.SIGINT: "Stopped by Ctrl-C. The same command continues where this one stopped.\n",
}


def signaled(monkeypatch, owner, name, number, time=1):
    """The ``time``-th call of ``owner.name`` comes with a signal to this process."""
    calls, function = [], getattr(owner, name)

    def call(*arguments, **rest):
        calls.append(1)
        if len(calls) == time:
            os.kill(os.getpid(), number)
        return function(*arguments, **rest)

    monkeypatch.setattr(owner, name, call)


@pytest.mark.usefixtures("quiet_figures")
@pytest.mark.parametrize(
    ("owner", "name", "number", "time"),
    [(Defense, "training_step", signal.SIGTERM, 4), (BIM, "__call__", signal.SIGINT, 1)],
    ids=["SIGTERM in training", "Ctrl-C in an attack"],
)
def test_a_signal_ends_with_its_exit_code_and_one_sentence(command, tmp_path, monkeypatch, owner, name, number, time):
    run = (*TINY, f"paths.output_dir={tmp_path}")
    before = {one: signal.getsignal(one) for one in SENTENCE}
    with monkeypatch.context() as patch:
        signaled(patch, owner, name, number, time)
        answer = command(*run)
    assert (answer.code, answer.err) == (128 + number, SENTENCE[number])
    assert {one: signal.getsignal(one) for one in SENTENCE} == before, "handlers that outlive the command"
    again = command(*run)
    assert again.code == 0, again.err
    assert ("continuing undefended from its last resume point" in again.out) == (number == signal.SIGTERM)
    assert ("reused" in again.out) == (number == signal.SIGINT)
    assert list(tmp_path.glob("none_digits/*/result.json"))


def test_a_process_of_ours_leaves_the_sentence_to_the_one_above(command, tmp_path, monkeypatch):
    signaled(monkeypatch, pipeline, "train", signal.SIGTERM)
    monkeypatch.setenv("ROBUSTFORGE_CHILD", "1")
    answer = command(*TINY, f"paths.output_dir={tmp_path}")
    assert (answer.code, answer.err) == (143, "")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_exception_that_python_ignores_comes_again():
    class Finalized:
        def __del__(self):
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Stopped) as caught, listening():
        Finalized()  # ends here, and Python ignores what its finalizer raises
    assert caught.value.code == 143
    with listening():
        check()  # nothing is left of it


@pytest.mark.parametrize("answer", [0, 1], ids=["requeued", "refused"])
def test_slurms_notice_requeues_the_job(command, tmp_path, monkeypatch, answer):
    (tmp_path / "scontrol").write_text(f"#!/bin/sh\necho $* > {tmp_path}/asked\necho no such job >&2\nexit {answer}\n")
    (tmp_path / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "41")
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "40")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "7")
    signaled(monkeypatch, pipeline, "train", signal.SIGUSR1)
    done = command(*TINY, f"paths.output_dir={tmp_path}")
    assert done.code == 128 + signal.SIGUSR1
    assert (tmp_path / "asked").read_text() == "requeue 40_7\n"
    assert ("no such job" in done.err) == bool(answer)
    assert len(done.err.splitlines()) == 1
    assert done.err.endswith("same command continues where this one stopped.\n")


def test_only_a_queued_job_listens_to_slurms_notice(monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert slurm.notice() == ()
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    assert slurm.notice() == (signal.SIGUSR1,)
    monkeypatch.setenv("SLURM_JOB_NAME", "bash")
    assert slurm.notice() == ()


def test_a_task_of_srun_is_a_rank(monkeypatch):
    found = {
        "SLURM_JOB_ID": "123456", "SLURM_STEP_ID": "0", "SLURM_NTASKS": "4", "SLURM_PROCID": "3", "SLURM_LOCALID": "1",
        "SLURM_NODEID": "1", "SLURM_STEP_NODELIST": "gpu[07-08]", "SLURM_JOB_NAME": "run",
    }  # fmt: skip
    monkeypatch.setattr(os, "environ", dict(found))
    slurm.become_rank()
    given = {key: value for key, value in os.environ.items() if key not in found}
    assert given == {
        "RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "NODE_RANK": "1", "MASTER_ADDR": "gpu07",
        "MASTER_PORT": "18456",
    }  # fmt: skip
    for name, value in (("SLURM_STEP_ID", None), ("SLURM_NTASKS", "1"), ("SLURM_JOB_NAME", "interactive")):
        other = {**found, name: value}
        monkeypatch.setattr(os, "environ", {key: item for key, item in other.items() if item is not None})
        slurm.become_rank()
        assert "RANK" not in os.environ, name
