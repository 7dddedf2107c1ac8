"""Adversarial training on both sides: turns, the same work, a row that says whether the comparison is fair."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from benchmarks import plain_training
from benchmarks import training as bench
from torch import nn

from robustforge.nn.small_cnn import small_cnn


@pytest.fixture
def case(monkeypatch):
    monkeypatch.setattr(bench, "BATCH", 8)
    monkeypatch.setattr(bench, "STEPS", 2)
    monkeypatch.setattr(plain_training, "WORKERS", 0)
    (gray,) = [case for case in bench.cases() if case.shape == (1, 28, 28)]
    return replace(gray, batches=2)


def test_a_row(case):
    row = bench.measure(case)
    assert row.ratio == pytest.approx(row.ours / row.theirs)
    assert row.ours > 0
    assert (row.bar, row.unit) == (5, "images/s")
    assert "8 clean and 8 attacked, median of 2 batches" in row.note


def test_sides_take_turns():
    calls = []
    turns = bench.Turns(lambda: calls.append(len(turns.ours)))
    turns.on_train_epoch_start(None, None)
    for batch in range(3):
        turns.on_train_batch_end(None, None, None, None, batch)
    assert calls == [1, 2, 3]
    assert len(turns.ours) == len(turns.theirs) == 3


def test_the_other_side_learns(monkeypatch):
    monkeypatch.setattr(plain_training, "WORKERS", 0)
    network = small_cnn((1, 28, 28), 10, (0.5,), (0.25,))
    images = np.random.default_rng(0).integers(0, 256, (16, 28, 28, 1), dtype=np.uint8)
    loop = plain_training.plain_loop(network, 0.3, (), images, np.arange(16) % 10, batch=8, steps=2)
    next(loop)
    before = [p.detach().clone() for p in network.parameters()]
    next(loop)
    assert all(not torch.equal(old, new) for old, new in zip(before, network.parameters(), strict=True))
    assert network.training


def test_bars():
    assert [(case.name.split(",")[0], case.bar) for case in bench.cases()] == [("ResNet-18", 4), ("small_cnn", 5)]


def test_the_other_side_has_pytorchs_own_layers():
    network = small_cnn((1, 28, 28), 10, (0.5,), (0.25,))
    x = torch.rand(2, 1, 28, 28)
    before = network(x)
    plain = plain_training.ordinary(network)
    assert {type(layer) for layer in plain if isinstance(layer, nn.Conv2d)} == {nn.Conv2d}
    torch.testing.assert_close(plain(x), before)
