"""Fresh processes: one for each job of a sweep, and one for each rank of a job on several devices.

Hydra's multirun trains every job inside the sweep's own process. Under DDP, Lightning then starts the other ranks with
the whole ``-m`` command line: each replays the sweep, may draw another trial, and the gradients of different trials
are averaged with exit code 0. A job in its own process cannot do any of that, and one that fails is one failed row.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Sequence
from pathlib import Path

from robustforge.config.processes import CHILD, command_of, run_together
from robustforge.files import write_json, write_text
from robustforge.manifest import read_object
from robustforge.types import DamagedError

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
    CHILD,
)
GROUP = "ROBUSTFORGE_GROUP"  # in the environment of jobs that belong together: what dashboards group them by
FAILED, TRAINED = "FAILED", "TRAINED"  # files that mark a job of a sweep which left no result
DONE = "DONE"  # file that marks a job which ended well, and holds the key of what it was
_NOT_FORWARDED = ("hydra.mode", "hydra.launcher", "hydra/launcher", "hydra.sweeper", "hydra/sweeper", "hydra.sweep")


def clean_environment() -> dict[str, str]:
    """This process's environment without what tells a process that it is one of several."""
    return {key: value for key, value in os.environ.items() if key not in RANK_VARIABLES}


def forwarded(overrides: Sequence[str]) -> list[str]:
    """Hydra's own overrides that a job needs too (not the launcher's, the sweeper's or the mode)."""
    return [item for item in overrides if not item.lstrip("+~").startswith(_NOT_FORWARDED)]


def run_job(
    module: str, overrides: Sequence[str], hydra_overrides: Sequence[str], folder: Path, key: str, group: str = ""
) -> float:
    """Runs one job of a sweep in a fresh interpreter and reads back its objective, or finds that it was run.

    Args:
        module: entry module, for ``python -m``.
        overrides: the job's own overrides.
        hydra_overrides: ``hydra.*`` overrides of the sweep.
        folder: the job's run folder.
        key: of all that decides the job's numbers, see :func:`robustforge.config.sweeps.job_key`.
        group: that dashboards show the job in.

    Returns:
        The objective in result.json, or minus infinity for a job without one: it failed (marked by a file FAILED), or
        trained without an evaluation (TRAINED). Its exit code decides which.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "overrides.json", list(overrides))  # again, because its time is the job's place in the summary
    if _finished(folder, key):
        print(f"{folder.name}: finished by an earlier call", flush=True)
        return _objective(folder)
    for mark in (FAILED, TRAINED, DONE):
        (folder / mark).unlink(missing_ok=True)
    arguments = [*overrides, *forwarded(hydra_overrides), "hydra.mode=RUN", run_dir(folder)]
    code = run_together([command_of(module, arguments)], [{**clean_environment(), **({GROUP: group} if group else {})}])
    if code:
        write_text(folder / FAILED, f"exit code {code}\n")
        return float("-inf")
    if not (folder / "result.json").exists():
        write_text(folder / TRAINED, "exit code 0, not evaluated\n")
    write_text(folder / DONE, key)
    return _objective(folder)


def _finished(folder: Path, key: str) -> bool:
    """Whether the same job has run here to its end, and what it left is still there and whole."""
    if not (folder / DONE).exists() or (folder / DONE).read_text() != key:
        return False
    try:
        return (folder / TRAINED).exists() or "objective" in read_object(folder / "result.json")
    except DamagedError:
        return False


def _objective(folder: Path) -> float:
    result = folder / "result.json"
    found = read_object(result).get("objective") if result.exists() else None
    return float("-inf") if found is None else float(found)


def run_ranks(module: str, overrides: Sequence[str], count: int) -> int:
    """Runs one job as ``count`` processes on this machine and returns the exit code.

    All end when one fails, so that nobody waits for ever. torchrun would do it too, and print a page about each
    failure, which hides the one sentence that says what to do.

    Args:
        module: entry module, for ``python -m``.
        overrides: the job's overrides, ``hydra.run.dir`` included, so that every rank has the same folder.
        count: number of processes.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    threads = max(1, (os.cpu_count() or 1) // count)
    shared = {"OMP_NUM_THREADS": str(threads), **clean_environment()}
    shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count), "NODE_RANK": "0"}
    environments = [{**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(count)]
    return run_together([command_of(module, overrides)] * count, environments)


def run_dir(folder: Path) -> str:
    """The override that makes ``folder`` the run folder, whatever characters its name has."""
    return f"hydra.run.dir={quoted(str(folder))}"


def quoted(text: str) -> str:
    """A text as a value in Hydra's grammar, which it leaves as it is: no list, number or interpolation."""
    plain = re.sub(r"(\\*)\$\{", lambda found: found[1] * 2 + "\\${", text)  # OmegaConf's escape
    escaped = re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + ("\\'" if found[2] else ""), plain)
    return f"'{escaped}'"


def launched_by_us() -> bool:
    """Whether this process is already one rank of several."""
    return "LOCAL_RANK" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1
