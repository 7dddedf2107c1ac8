"""Killed, signaled, or two at once: the same command ends with the same bytes, or says in one sentence why not.

ROBUSTFORGE_KILLS: random kills a method (default 3), and placed kills a method (default as many; "all" for every
change to a file). The full run takes hours on two cores: ROBUSTFORGE_KILLS=20 ROBUSTFORGE_PLACED=all.
"""

import itertools
import os
import random
import signal

import pytest
from chaos_children import KILLED
from chaos_runs import METHODS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200)]
KILLS = int(os.environ.get("ROBUSTFORGE_KILLS", "3"))
PLACED = os.environ.get("ROBUSTFORGE_PLACED", "3")
PHASES = {
    "memdef": ("start", "training", "validation", "crafting", "attacks", "writing records", "pictures"),
    "mrr": ("calibration",),
}
SENTENCE = "Stopped by {}. The same command continues where this one stopped.\n"


@pytest.mark.parametrize("method", METHODS)
def test_random_kills(command, unbroken, method):
    """Every kill meets what the ones before have left; a run that comes to its end is compared, and begun anew."""
    whole, seconds, _ = unbroken(method)
    draw, hits, runs = random.Random(f"{method} {KILLS}"), 0, 1
    killed = command(method, "killed-1")
    while hits < KILLS:
        process = killed.start()
        process.join(draw.uniform(0, seconds))
        hits += process.exitcode is None
        process.kill()
        process.join()
        assert process.exitcode in (0, -signal.SIGKILL), killed.said()
        if process.exitcode == 0:
            assert killed.state() == whole
            runs += 1
            killed = command(method, f"killed-{runs}")
    assert killed.run() == 0, killed.said()
    assert killed.state() == whole
    print(f"{method}: {hits} kills of running processes, in {runs} runs")


@pytest.mark.parametrize("torn", [False, True], ids=["before", "within"])
@pytest.mark.parametrize("method", METHODS)
def test_a_kill_at_a_change_to_a_file(command, unbroken, method, torn):
    """At every change that an unbroken run makes, or at some: each in a fresh folder."""
    whole, _, changes = unbroken(method)
    count = changes if PLACED == "all" else int(PLACED)
    places = sorted({1 + round(k * (changes - 1) / max(1, count - 1)) for k in range(count)})
    for at in places:
        killed = command(method, f"killed-{at}")
        assert killed.run(at=at, torn=torn) == KILLED, (at, killed.said())
        assert killed.run() == 0, (at, killed.said())
        assert killed.state() == whole, at
    print(f"{method}: {len(places)} of {changes} places")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
@pytest.mark.parametrize(("method", "phase"), [(method, phase) for method in PHASES for phase in PHASES[method]])
def test_a_signal_in_a_phase(command, unbroken, method, phase, number):
    stopped = command(method)
    assert stopped.run(phase=phase, signal=number) == 128 + number
    said = stopped.said()
    assert said.count(SENTENCE.format("SIGTERM" if number == signal.SIGTERM else "Ctrl-C")) == 1, said
    assert "Traceback" not in said
    assert stopped.run() == 0, stopped.said()
    assert stopped.state() == unbroken(method)[0]


@pytest.mark.parametrize(("one", "two"), list(itertools.combinations_with_replacement(METHODS, 2)))
def test_two_at_once(command, unbroken, one, two):
    """In one store, each in its own run folder."""
    together(unbroken, (command(one, "shared"), "one"), (command(two, "shared"), "two"))


@pytest.mark.parametrize("method", METHODS)
def test_two_at_once_in_one_folder(command, unbroken, method):
    together(unbroken, (command(method), "run"), (command(method), "run"))


def together(unbroken, *pair):
    started = [command.start(name=name) for command, name in pair]
    for process in started:
        process.join(600)
    assert [process.exitcode for process in started] == [0, 0], pair[0][0].said()
    for command, name in pair:
        whole, state = unbroken(command.method)[0], command.state(name)
        assert (state["records"], state["numbers"], state["left"]) == (whole["records"], whole["numbers"], [])
        assert whole["products"].items() <= state["products"].items()
