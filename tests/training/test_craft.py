"""Crafting an adversarial set: in order, inside the ball, continued by batch."""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
import pytest
import torch

from robustforge.attacks.core.geometry import inside
from robustforge.attacks.core.surface import Surface
from robustforge.attacks.pgd import PGD
from robustforge.defenses.memdef import MemoryDefense, SelectorSettings, StackSettings
from robustforge.defenses.schedules import constant
from robustforge.defenses.stages import Training, derive_seed
from robustforge.nn.small_cnn import small_cnn
from robustforge.types import Threat

MODEL = partial(small_cnn, shape=(1, 28, 28), num_classes=10, mean=(0.3,), std=(0.3,), widths=(4, 8), hidden=16)
THREAT = Threat("linf", 0.1)


@dataclass(frozen=True)
class Watched:
    """PGD that writes down whom it attacks, and may die."""

    name: str = "watched"
    steps: int = 2
    calls: ClassVar[list[list[int]]] = []
    dies_at: ClassVar[int | None] = None

    def __call__(self, surface: Surface, x, y, threat, *, index=None, seed=0, threshold=None):
        if Watched.dies_at == len(Watched.calls):
            raise KeyboardInterrupt
        Watched.calls.append(index.tolist())
        return PGD(steps=self.steps, early_stop=False)(surface, x, y, threat, index=index, seed=seed)


@pytest.fixture(autouse=True)
def forget():
    Watched.calls.clear()
    Watched.dies_at = None
    yield
    Watched.dies_at = None


def offline(attack=None):
    once = Training(1, partial(torch.optim.Adam, lr=3e-3), constant)
    attack = attack or Watched()
    return MemoryDefense(
        MODEL, SelectorSettings("offline", once, attack, THREAT), StackSettings(once), once, (1, 28, 28), 10, 20,
        variant="selector",
    )  # fmt: skip


def crafted(done):
    (report,) = [r for r in done.reports if r.name == "adversarial_set"]
    return done.store.find("adversarial_set", report.key).load_images()


def crafting_calls():
    """The calls of the crafting pass; validation of the selector, which comes after, attacks other images."""
    return Watched.calls[:3]


def test_the_set_is_the_attack_on_the_training_split_in_order(run):
    done = run(offline())
    assert [r.name for r in done.reports] == ["undefended", "adversarial_set", "selector"]
    images = crafted(done)
    data = done.data
    assert images.shape == (96, 1, 28, 28)
    assert images.dtype == np.float32
    clean = data.train.images.float() / 255
    assert inside(torch.from_numpy(images.copy()), clean, THREAT).all()
    assert crafting_calls() == [list(range(40)), list(range(40, 80)), list(range(80, 96))]
    surface = done.defense.stages()[1].surface()
    direct = PGD(steps=2, early_stop=False)(
        surface, clean, data.train.labels, THREAT, index=torch.arange(96), seed=derive_seed(0, "adversarial_set")
    )
    different = np.abs(images - direct.x_adv.numpy()) > 1e-5
    assert different.mean() < 0.002
    assert direct.success.float().mean() > 0.3
    calls = len(Watched.calls)
    again = run(offline())
    assert [r.reused for r in again.reports] == [True, True, True]
    assert len(Watched.calls) == calls


@pytest.mark.parametrize("dies_at", [0, 2])
def test_an_interrupted_pass_goes_on_where_it_died(run, dies_at):
    unbroken = crafted(run(offline(), store="unbroken"))
    Watched.calls.clear()
    Watched.dies_at = dies_at
    with pytest.raises(KeyboardInterrupt):
        run(offline())
    assert len(Watched.calls) == dies_at
    Watched.dies_at = None
    done = run(offline())
    assert [r.reused for r in done.reports] == [True, False, False]
    assert crafting_calls() == [list(range(40)), list(range(40, 80)), list(range(80, 96))]
    assert np.array_equal(crafted(done), unbroken)


def test_killed_within_the_writing_of_a_batch_attacks_it_again(run, monkeypatch):
    unbroken = crafted(run(offline(), store="unbroken"))
    Watched.calls.clear()
    flush, flushed = np.memmap.flush, []

    def dying(self):
        flush(self)
        flushed.append(self.dtype)
        if self.dtype == np.float32 and len(flushed) == 5:  # the images of the second batch are there, its mark is not
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(np.memmap, "flush", dying)
        with pytest.raises(KeyboardInterrupt):
            run(offline())
    assert len(Watched.calls) == 2
    done = run(offline())
    assert Watched.calls[2] == list(range(40, 80))
    assert np.array_equal(crafted(done), unbroken)


def test_the_selector_is_trained_on_pairs(run, monkeypatch):
    seen = []
    losses = MemoryDefense.selector_losses
    monkeypatch.setattr(MemoryDefense, "selector_losses", lambda self, batch: seen.append(batch) or losses(self, batch))
    images = crafted(run(offline()))
    assert len(seen) == 3
    for batch in seen:
        assert np.array_equal(batch.x_adv.numpy(), images[batch.index.numpy()])
        assert inside(batch.x_adv, batch.x, THREAT).all()


def test_a_limited_trainer_limits_the_pass_and_is_kept_apart(run, caplog):
    done = run(offline(), limits={"limit_train_batches": 1})
    images, clean = crafted(done), done.data.train.images.float().numpy() / 255
    assert Watched.calls[0] == list(range(32))
    assert np.array_equal(images[32:], clean[32:])
    assert (images[:32] != clean[:32]).any(axis=(1, 2, 3)).all()
    assert "only 1 batches were attacked" in caplog.text
    whole = run(offline())
    assert not any(r.reused for r in whole.reports)
    assert (crafted(whole) != clean).any(axis=(1, 2, 3)).all()
