"""What a run asks SLURM: whether it is one of several tasks, and to be started again before its time is over."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping

_INTERACTIVE = ("bash", "interactive")


def in_batch_job(environment: Mapping[str, str] | None = None) -> bool:
    """Whether this process belongs to a job that sbatch queued, and no interactive shell."""
    found = os.environ if environment is None else environment
    return "SLURM_JOB_ID" in found and found.get("SLURM_JOB_NAME") not in _INTERACTIVE


def notice() -> tuple[int, ...]:
    """The signal that ``#SBATCH --signal=SIGUSR1@90`` asks for, where this is a batch job; else none."""
    return (signal.SIGUSR1,) if in_batch_job() else ()


def requeue() -> str | None:
    """Asks SLURM to start this job again, which continues it.

    Returns:
        None, or why SLURM did not.
    """
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    job = f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else os.environ["SLURM_JOB_ID"]
    try:
        done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return (done.stderr.strip() or f"exit code {done.returncode}") if done.returncode else None


def become_rank() -> None:
    """Gives a task that ``srun`` started as one of several the variables that torchrun would have given it.

    ``SLURM_STEP_ID`` says that srun started it: the batch script itself has ``SLURM_NTASKS`` too.
    """
    found = os.environ
    tasks = int(found.get("SLURM_STEP_NUM_TASKS", found.get("SLURM_NTASKS", "1")))
    if tasks < 2 or "RANK" in found or "SLURM_STEP_ID" not in found or not in_batch_job():
        return
    from lightning.fabric.plugins.environments.slurm import SLURMEnvironment  # knows how SLURM writes lists of machines

    machines = found.get("SLURM_STEP_NODELIST") or found.get("SLURM_NODELIST", "127.0.0.1")
    found["RANK"], found["WORLD_SIZE"] = found["SLURM_PROCID"], str(tasks)
    found["LOCAL_RANK"], found["NODE_RANK"] = found["SLURM_LOCALID"], found.get("SLURM_NODEID", "0")
    found.setdefault("MASTER_ADDR", SLURMEnvironment.resolve_root_node_address(machines))
    found.setdefault("MASTER_PORT", str(15000 + int(found["SLURM_JOB_ID"][-4:])))  # the same on all machines
