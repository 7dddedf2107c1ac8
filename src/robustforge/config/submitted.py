"""Jobs of a sweep that submitit runs on this machine: they end with the sweep that started them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from robustforge.interruption import listening

LAUNCHER = "hydra/launcher=submitit_local"
_CLOSING, _LOOK = 30.0, 0.05  # seconds: for a job to end by itself; between two looks


@contextmanager
def ending_with_us(arguments: Sequence[str]) -> Iterator[None]:
    """Ends the jobs that were started inside the block and still run at its end.

    submitit lets its jobs live on, and tells nobody but the launcher which they are.

    Args:
        arguments: the command line; without this launcher nothing happens.
    """
    if LAUNCHER not in arguments:
        yield
        return
    try:
        from submitit.local import local
    except ImportError:  # Hydra says that the launcher is missing
        yield
        return
    executor: Any = local.LocalExecutor
    jobs, submit = [], executor._submit_command

    def noted(self: Any, command: str) -> Any:
        jobs.append(submit(self, command))
        return jobs[-1]

    executor._submit_command = noted
    try:
        yield
    finally:
        executor._submit_command = submit
        _end([job for job in jobs if not job.done()])


def _end(jobs: Sequence[Any]) -> None:
    """SIGTERM, which each hands on and answers by ending; submitit's own way for those that do not."""
    for job in jobs:
        os.kill(int(job.job_id), signal.SIGTERM)  # a local job's name is the number of its process
    end = time.monotonic() + _CLOSING
    while any(not job.done() for job in jobs) and time.monotonic() < end:
        time.sleep(_LOOK)
    for job in jobs:
        if not job.done():
            job.cancel()


def as_job() -> AbstractContextManager[object]:
    """Around a job of a sweep: SIGTERM ends it in a process of submitit on this machine too, which would ignore it."""
    return listening() if os.environ.get("SUBMITIT_EXECUTOR") == "local" else nullcontext()
