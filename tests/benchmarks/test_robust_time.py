"""Time to a robust accuracy: both sides train, the clock stops at the target, what falls short is no comparison."""

from types import SimpleNamespace

import pytest
import torch
from benchmarks import _robust_time as bench
from benchmarks import plain_training
from torch import nn

from robustforge.data.sources import digits


@pytest.fixture
def short(monkeypatch):
    raw = digits()
    few = {name: values[:64] for name, values in raw.items()}
    monkeypatch.setattr(bench, "digits", lambda shape: few)
    monkeypatch.setattr(bench, "BATCH", 16)
    monkeypatch.setattr(bench, "STEPS", 1)
    monkeypatch.setattr(plain_training, "WORKERS", 0)
    monkeypatch.setattr(bench, "auto_fast", lambda: bench.PGD(steps=2))


def test_a_row(short):
    race = bench.races()[0]
    row = bench.race(bench.Race(race.name, race.model, race.shape, race.eps, 1, 8, 2.0))
    assert row.ratio == pytest.approx(row.ours / row.theirs)
    assert min(row.ours, row.theirs) > 0
    assert "after 1 epochs of PGD-1, ours" in row.note


def test_the_clock_stops_training_at_the_target():
    reached = iter([0.2, 0.6, 0.9])
    clock = bench.Clock(lambda network, target: next(reached), target=0.5)
    trainer, module = SimpleNamespace(should_stop=False), SimpleNamespace(classifier=nn.Linear(1, 1))
    stopped = []
    for _ in range(2):
        clock.on_train_epoch_start(trainer, module)
        clock.on_train_epoch_end(trainer, module)
        stopped.append(trainer.should_stop)
    assert stopped == [False, True]
    assert (clock.epochs, clock.reached) == (2, 0.6)
    assert 0 < clock.seconds < 1


def test_bars_and_sizes():
    assert [(race.name.split(",")[0], race.bar) for race in bench.races()] == [("small_cnn", 2.0), ("ResNet-18", 3.0)]
    for race in bench.races():
        assert race.model()(torch.rand(2, *race.shape)).shape == (2, 10)
