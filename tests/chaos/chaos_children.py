"""Commands in processes forked from one that has imported everything, with the accidents that a plan names.

Nothing of the package is patched for a kill: an audit hook sees every file operation before it happens.
"""

import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

PRELOAD = ["robustforge.cli.pipeline", "robustforge.cli.train", "chaos_children"]
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate")
KILLED = 137


@dataclass(frozen=True)
class Plan:
    """What happens to a process.

    Attributes:
        root: folder whose changes count.
        at: number of the change before which the process dies; None to live.
        torn: whether the file that would be written then holds half of something.
        phase: where a signal comes: a key of PHASES.
        signal: that signal.
        count: file that the number of changes is written to at the end.
    """

    root: str
    at: int | None = None
    torn: bool = False
    phase: str | None = None
    signal: int = signal.SIGTERM
    count: str | None = None


def phases():
    """Phase -> (owner, name) of a function that runs in it and nowhere else."""
    from robustforge.attacks.bim import BIM
    from robustforge.cli import pictures, pipeline
    from robustforge.defenses.base import Defense
    from robustforge.evaluation.runner import Evaluation
    from robustforge.training import craft, runner

    return {
        "start": (pipeline, "claim"),
        "training": (Defense, "training_step"),
        "validation": (Defense, "validation_step"),
        "crafting": (craft, "track"),
        "calibration": (runner.StageRunner, "_calibrate"),
        "attacks": (BIM, "__call__"),
        "writing records": (Evaluation, "_diagnostics"),
        "pictures": (pictures, "draw"),
    }


def nothing():
    """The first process waits for the server's imports."""


def child(arguments, log, plan):
    """``train.py <arguments>`` with the accident of ``plan``."""
    with open(log, "ab", buffering=0) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.argv = ["train.py", *arguments]
    from robustforge.cli.train import main

    seen = _watch(plan)
    if plan.phase is not None:
        _signal_in(plan)
    try:
        main()
    finally:
        if plan.count:
            number = seen[0]
            Path(plan.count).write_text(str(number))


def _signal_in(plan):
    owner, name = phases()[plan.phase]
    function, calls = getattr(owner, name), []

    def call(*arguments, **rest):
        calls.append(1)
        if len(calls) == 2 or plan.phase not in ("training", "attacks"):
            os.kill(os.getpid(), plan.signal)
        return function(*arguments, **rest)

    setattr(owner, name, call)


def _watch(plan):
    """[number of changes below the root so far]; before the one that the plan names, the process is gone."""
    seen, inside, process = [0], [False], os.getpid()

    def hook(event, arguments):
        if inside[0] or os.getpid() != process or not _changes(event, arguments, plan.root):
            return
        inside[0] = True
        seen[0] += 1
        if seen[0] == plan.at:
            if plan.torn and event == "open":
                with open(arguments[0], "wb") as file:
                    file.write(b"half of something")
            os._exit(KILLED)
        inside[0] = False

    sys.addaudithook(hook)
    return seen


def _changes(event, arguments, root):
    if event == "open":
        path, _, flags = arguments
        return isinstance(path, (str, os.PathLike)) and str(path).startswith(root) and bool(flags & WRITES)
    return event in CHANGES and any(
        isinstance(one, (str, os.PathLike)) and str(one).startswith(root) for one in arguments
    )
