"""Processes beside each other: who ends whom, what is said, and what a signal does. Small programs, no torch."""

import os
import signal
import sys
import threading
import time
from contextlib import nullcontext

import pytest

from robustforge.config.processes import CHILD, is_child, run_together
from robustforge.interruption import Stopped, listening
from robustforge.types import UserError


def together(*programs):
    return run_together([[sys.executable, "-c", text] for text in programs], [dict(os.environ)] * len(programs))


def test_all_end_well(tmp_path):
    place = f"import os; open('{tmp_path}/' + str(os.getpid()), 'w').write(os.environ['{CHILD}'])"
    assert together(place, place) == 0
    assert [path.read_text() for path in tmp_path.iterdir()] == ["1", "1"]
    assert not is_child()


@pytest.mark.parametrize(
    ("first", "second", "code", "said"),
    [
        ("import sys; sys.exit('a bug')", "import time; time.sleep(60)", 1, "a bug"),
        ("import time; time.sleep(60)", "import sys; sys.exit('a bug')", 1, "a bug"),
        ("import os; os.kill(os.getpid(), 9)", "import time; time.sleep(60)", 137, ""),
        *[("import sys; sys.stderr.write('Error: x\\n'); sys.exit(2)",) * 2 + (2, "Error: x\n")] * 1,
    ],
    ids=["the first", "the second", "killed", "one mistake of both"],
)
def test_one_that_fails_ends_the_others_and_is_heard_once(capfd, first, second, code, said):
    began = time.monotonic()
    assert together(first, second) == code
    assert time.monotonic() - began < 30
    assert capfd.readouterr().err.strip() == said.strip()


@pytest.fixture
def usual_ctrl_c():
    """Python's own handler, which it does not install where a shell has started it in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    ("number", "heard", "around"),
    [
        (signal.SIGTERM, Stopped, listening),
        (signal.SIGINT, Stopped, listening),
        (signal.SIGINT, KeyboardInterrupt, nullcontext),
    ],
    ids=["SIGTERM", "Ctrl-C", "Ctrl-C in another's process"],
)
def test_a_signal_reaches_all(tmp_path, number, heard, around, usual_ctrl_c):
    program = (
        "import signal, sys, time, os\n"
        f"signal.signal({int(number)}, lambda *_: (open('{tmp_path}/' + str(os.getpid()), 'w'), os._exit(0)))\n"
        f"open('{tmp_path}/ready' + str(os.getpid()), 'w')\n"
        "time.sleep(60)\n"
    )

    def later():
        while len(list(tmp_path.glob("ready*"))) < 2:
            time.sleep(0.02)
        os.kill(os.getpid(), number)

    threading.Thread(target=later, daemon=True).start()
    with pytest.raises(heard), around():
        together(program, program)
    assert len([path for path in tmp_path.iterdir() if not path.name.startswith("ready")]) == 2


def test_what_cannot_be_started_is_a_sentence():
    with pytest.raises(UserError, match="cannot be started"):
        run_together([["/no/such/program"]], [{}])
