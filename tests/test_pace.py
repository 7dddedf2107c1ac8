"""Time in words, what is left, and when a line is due; and what progress looks like in a log file."""

import logging

import numpy as np
import pytest

from robustforge import pace
from robustforge.evaluation.progress import CellProgress
from robustforge.pace import EVERY, Pace, duration


@pytest.fixture
def clock(monkeypatch):
    """A clock that goes by itself only when told: clock.now."""

    class Clock:
        now = 100.0

    monkeypatch.setattr(pace.time, "perf_counter", lambda: Clock.now)
    return Clock


def test_words():
    assert [duration(s) for s in (4.2, 41.0, 89.9, 210, 5399, 7600)] == [
        "4.2 s", "41 s", "90 s", "3.5 min", "90.0 min", "2.1 h",
    ]  # fmt: skip


def test_what_is_left_goes_by_what_was_done_here(clock):
    one = Pace(total=10, done=2)
    assert one.left() == ""
    clock.now += 30
    one.done = 5
    assert (one.seconds, one.left()) == (30, "about 50 s left")
    one.done = 10
    assert one.left() == ""


def test_a_line_is_due_twice_a_minute(clock):
    one = Pace(1)
    assert not one.due()
    clock.now += EVERY
    assert one.due()
    assert not one.due()


def test_an_evaluation_in_a_log_file(clock, caplog):
    caplog.set_level(logging.INFO, "robustforge")
    with CellProgress(3, quiet=False) as bar:
        bar.begin("memdef: pgd on end_to_end", 100)
        clock.now += 40
        bar.advance(np.arange(50) < 10)
        clock.now += 40
        bar.advance(np.zeros(50, dtype=bool))
        bar.end()
        bar.begin("memdef: fgsm on end_to_end", 100)
        bar.end()
    assert caplog.messages == [
        "cell 1/3 memdef: pgd on end_to_end: 50 of 100 images, 80.0 % still correct, 1 images/s, about 40 s left",
        "cell 1/3 memdef: pgd on end_to_end: 90.0 % still correct, 80 s, about 2.7 min left",
        "cell 2/3 memdef: fgsm on end_to_end: measured before, about 40 s left",
    ]
    caplog.clear()
    with CellProgress(1, quiet=True) as bar:
        bar.begin("x", 1)
        bar.end()
    assert caplog.messages == []


def test_a_stage_in_a_log_file(clock, caplog):
    from types import SimpleNamespace

    from robustforge.callbacks.progress import StageProgress

    caplog.set_level(logging.INFO, "robustforge")
    bar = StageProgress()
    assert bar._lines, "nobody looks at a terminal here"
    trainer = SimpleNamespace(
        max_epochs=4, current_epoch=0, is_global_zero=True, callback_metrics={"stack/train/loss": 0.25}
    )
    bar._stage, bar._pace = "stack", Pace(4)
    bar.disable()
    for epoch in range(4):
        clock.now += 20
        trainer.current_epoch = epoch
        bar.on_train_epoch_end(trainer, None)
    assert caplog.messages == [
        "  stack: epoch 2 of 4, loss 0.25, about 40 s left",
        "  stack: epoch 4 of 4, loss 0.25",
    ]
