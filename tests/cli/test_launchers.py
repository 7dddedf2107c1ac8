"""Ranks that torchrun or srun starts: the same records from the same weights as one process. Slow."""

import json
import random
import socket
import subprocess
import sys

import pytest
from test_ranks import FEW, ROOT, answers

from robustforge.config.isolated import clean_environment

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
ASKED = tuple(item for item in FEW if item.startswith(("protocol", "attack")))


def ended(processes):
    """What the processes have printed on stdout, together; all must end well."""
    said = [process.communicate(timeout=400) for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), [err[-2000:] for _, err in said]
    return "".join(out for out, _ in said)


def start(*command, **more):
    environment = {**clean_environment(), "OMP_NUM_THREADS": "1", **more}
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, *command], cwd=ROOT, env=environment, stdout=pipe, stderr=pipe, text=True)


def alone(*command):
    return ended([start(*command)])


def by_torchrun(*command):
    return ended([start("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", *command)])


def by_srun(*command):
    """Two tasks with the variables that SLURM gives to those of one machine."""
    step = {"SLURM_JOB_ID": free_job(), "SLURM_STEP_ID": "0", "SLURM_JOB_NAME": "run", "SLURM_NTASKS": "2",
            "SLURM_NNODES": "1", "SLURM_NODEID": "0", "SLURM_STEP_NODELIST": "localhost"}  # fmt: skip
    return ended([start(*command, **step, SLURM_PROCID=str(rank), SLURM_LOCALID=str(rank)) for rank in (0, 1)])


def free_job():
    """A job's number, from which the ranks take their port, whose port is free."""
    for number in random.sample(range(1000, 9999), 50):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", 15000 + number)) != 0:
                return f"12{number}"
    raise AssertionError("no free port")


@pytest.mark.parametrize("together", [by_torchrun, by_srun])
def test_two_ranks_of_a_launcher_are_one_process(tmp_path, together):
    folder = tmp_path / "run"
    places = (f"paths.output_dir={tmp_path}", f"hydra.run.dir={folder}")
    out = together("train.py", "defense=none", *FEW, "trainer=ddp_cpu", *places)
    assert out.count("Everything is in") == 1, "every rank reports"
    assert out.count(": making ") == 1, "every rank logs"
    (stage,) = (tmp_path / "store").glob("undefended-*/manifest.json")
    assert json.loads(stage.read_text())["limits"]["processes"] == 2
    trained = answers(folder)
    assert len({index for *_, index in trained}) == 33

    def evaluated(how):
        out = how("scripts/evaluate.py", f"run={folder}", *ASKED, "overwrite=true", "progress=false")
        assert out.count("Everything is in") == 1
        (place,) = (folder / "evaluations").iterdir()
        return answers(place)

    assert trained == evaluated(together) == evaluated(alone)
