"""Resume points are written seldom enough that they cost next to nothing."""

from types import SimpleNamespace

import lightning.pytorch as pl
import pytest
from test_stage_runner import plain

from robustforge.training import resume


class Clock(pl.Callback):
    """A clock of the test's own, on which every epoch takes four seconds."""

    def __init__(self):
        self.now = 100.0

    def monotonic(self):
        return self.now

    def on_train_epoch_start(self, trainer, module):
        self.now += 4


@pytest.mark.parametrize(
    ("every", "writing", "after"),
    [(0.0, 1.0, [0, 1, 2, 3, 4, 5]), (5.0, 0.0, [1, 3, 5]), (5.0, 0.2, [1, 4]), (30.0, 0.0, [])],
    ids=["every epoch", "every five seconds", "slow to write", "too short a fit"],
)
def test_the_time_between_two(run, monkeypatch, every, writing, after):
    clock, written, save = Clock(), [], pl.Trainer.save_checkpoint

    def saving(self, path):
        written.append(self.current_epoch)
        clock.now += writing
        save(self, path)

    monkeypatch.setattr(pl.Trainer, "save_checkpoint", saving)
    monkeypatch.setattr(resume, "time", SimpleNamespace(monotonic=clock.monotonic))
    run(plain(6), callbacks=[clock], every=every)
    assert written == after


def test_between_two_points_a_killed_fit_repeats_what_came_after_the_first(run, weights, monkeypatch):
    whole = run(plain(5), store="whole")
    clock = Clock()
    monkeypatch.setattr(resume, "time", SimpleNamespace(monotonic=clock.monotonic))
    trained = []

    class Killed(pl.Callback):
        def on_train_epoch_start(self, trainer, module):
            trained.append(trainer.current_epoch)
            if trained == [0, 1, 2, 3]:
                raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        run(plain(5), callbacks=[clock, Killed()], every=5.0)
    ours = run(plain(5), callbacks=[Killed()], every=5.0)
    assert trained == [0, 1, 2, 3, 2, 3, 4]
    one, two = weights(ours.defense), weights(whole.defense)
    assert all(one[name].equal(two[name]) for name in two)
