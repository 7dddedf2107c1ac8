"""A second run waits for the first, and says whom it waits for."""

import os
import threading

from robustforge.training.locks import exclusive


def test_the_second_waits_and_says_for_whom(tmp_path, caplog):
    order, inside, waiting = [], threading.Event(), threading.Event()

    class Seen:
        """Tells when the waiting run has said so."""

        def write(self, _):
            waiting.set()

    def first():
        with exclusive(tmp_path / "locks" / "a.lock", "stage a"):
            inside.set()
            assert waiting.wait(20), "the second run did not say that it waits"
            order.append("first")

    thread = threading.Thread(target=first)
    thread.start()
    assert inside.wait(20)
    import logging

    handler = logging.StreamHandler(Seen())
    logging.getLogger("robustforge.training.locks").addHandler(handler)
    try:
        with exclusive(tmp_path / "locks" / "a.lock", "stage a"):
            order.append("second")
    finally:
        logging.getLogger("robustforge.training.locks").removeHandler(handler)
        thread.join()
    assert order == ["first", "second"]
    assert f"waiting for stage a, which another run is making: process {os.getpid()} on " in caplog.text
    assert not list((tmp_path / "locks").glob("*.holder"))


def test_what_a_dead_holder_left_is_no_obstacle(tmp_path, caplog):
    (tmp_path / "a.lock").touch()
    (tmp_path / "a.lock.holder").write_text("{half")
    with exclusive(tmp_path / "a.lock", "it"):
        assert "pid" in (tmp_path / "a.lock.holder").read_text()
    assert "waiting" not in caplog.text
