"""One process that has imported torch, from which the others are forked, and runs without accidents."""

import os
import time

import pytest
from chaos_children import PRELOAD, nothing
from chaos_runs import PROGRAM, Command


@pytest.fixture(scope="session")
def forkserver():
    """One process that has imported torch; the others are forked from it."""
    os.environ["OMP_NUM_THREADS"] = "1"
    PROGRAM.set_forkserver_preload(PRELOAD)
    first = PROGRAM.Process(target=nothing)
    first.start()
    first.join()
    return PROGRAM


@pytest.fixture(scope="session")
def unbroken(forkserver, tmp_path_factory):
    """unbroken(method): (state, seconds, number of changes to files) of a run without accidents; made once."""
    made = {}

    def call(method):
        if method not in made:
            command = Command(method, tmp_path_factory.mktemp(method) / "whole")
            count = command.root.parent / "count"
            began = time.monotonic()
            assert command.run(count=str(count)) == 0, command.said()
            made[method] = command.state(), time.monotonic() - began, int(count.read_text())
        return made[method]

    return call


@pytest.fixture
def command(forkserver, tmp_path):
    """command(method): a fresh one."""
    return lambda method, name="killed": Command(method, tmp_path / name)
