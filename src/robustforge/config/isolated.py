"""Fresh processes: one for each job of a sweep, and one for each rank of a job on several devices.

Hydra's multirun trains every job inside the sweep's own process. Under DDP, Lightning then starts the other ranks with
the whole ``-m`` command line: each replays the sweep, may draw another trial, and the gradients of different trials
are averaged with exit code 0. A job in its own process cannot do any of that, and one that fails is one failed row.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from robustforge.files import write_json, write_text
from robustforge.manifest import read_object

# what a rank inherits and a fresh job must not
RANK_VARIABLES = (
    "LOCAL_RANK",
    "NODE_RANK",
    "RANK",
    "WORLD_SIZE",
    "LOCAL_WORLD_SIZE",
    "GROUP_RANK",
    "ROLE_RANK",
    "MASTER_ADDR",
    "MASTER_PORT",
    "PL_GLOBAL_SEED",
    "TORCHELASTIC_RUN_ID",
)
FAILED, TRAINED = "FAILED", "TRAINED"  # files that mark a job of a sweep which left no result
_NOT_FORWARDED = ("hydra.mode", "hydra.launcher", "hydra/launcher", "hydra.sweeper", "hydra/sweeper", "hydra.sweep")


def clean_environment() -> dict[str, str]:
    """This process's environment without what tells a process that it is one of several."""
    return {key: value for key, value in os.environ.items() if key not in RANK_VARIABLES}


def forwarded(overrides: Sequence[str]) -> list[str]:
    """Hydra's own overrides that a job needs too (not the launcher's, the sweeper's or the mode)."""
    return [item for item in overrides if not item.lstrip("+~").startswith(_NOT_FORWARDED)]


def run_job(module: str, overrides: Sequence[str], hydra_overrides: Sequence[str], folder: Path) -> float:
    """Runs one job of a sweep in a fresh interpreter and reads back its objective.

    Args:
        module: entry module, for ``python -m``.
        overrides: the job's own overrides.
        hydra_overrides: ``hydra.*`` overrides of the sweep.
        folder: the job's run folder.

    Returns:
        The objective in result.json, or minus infinity for a job without one: it failed (marked by a file FAILED), or
        trained without an evaluation (TRAINED). Its exit code decides which.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for mark in (FAILED, TRAINED):
        (folder / mark).unlink(missing_ok=True)
    write_json(folder / "overrides.json", list(overrides))
    command = [
        sys.executable,
        "-m",
        module,
        *overrides,
        *forwarded(hydra_overrides),
        "hydra.mode=RUN",
        f"hydra.run.dir='{folder}'",
    ]
    code = subprocess.run(command, env=clean_environment(), check=False).returncode
    if code:
        write_text(folder / FAILED, f"exit code {code}\n")
        return float("-inf")
    result = folder / "result.json"
    if not result.exists():
        write_text(folder / TRAINED, "exit code 0, not evaluated\n")
        return float("-inf")
    objective = read_object(result).get("objective")
    return float("-inf") if objective is None else float(objective)


def run_ranks(module: str, overrides: Sequence[str], count: int) -> int:
    """Runs one job as ``count`` processes on this machine and returns the exit code.

    torchrun stops every rank when one fails, so that nobody waits for ever.

    Args:
        module: entry module, for ``python -m``.
        overrides: the job's overrides, ``hydra.run.dir`` included, so that every rank has the same folder.
        count: number of processes.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        f"--nproc-per-node={count}",
        "--master-addr=127.0.0.1",
        f"--master-port={port}",
        "-m",
        module,
        *overrides,
    ]
    environment = clean_environment()
    threads = max(1, (os.cpu_count() or 1) // count)
    environment.setdefault("OMP_NUM_THREADS", str(threads))
    return subprocess.run(command, env=environment, check=False).returncode


def launched_by_us() -> bool:
    """Whether this process is already one rank of several."""
    return "LOCAL_RANK" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1
