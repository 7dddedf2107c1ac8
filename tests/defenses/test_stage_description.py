"""Descriptions (the store's keys), seeds and schedules."""

import functools
import math
from dataclasses import dataclass
from functools import partial

import pytest
import torch
from torch import nn

from robustforge.attacks.pgd import PGD
from robustforge.attacks.torchattacks import TorchAttack
from robustforge.defenses.robust_loss import AdversarialLoss
from robustforge.defenses.schedules import constant, cosine, step
from robustforge.defenses.stages import Training, build_seeded, derive_seed, seed_everywhere
from robustforge.fingerprint import describe
from robustforge.nn.small_cnn import small_cnn
from robustforge.types import Threat, UserError


def test_schedules_by_hand():
    assert [constant(p) for p in (0, 0.5, 1)] == [1, 1, 1]
    assert [constant(p, 0.2) for p in (0, 0.1, 0.2, 1)] == [0, 0.5, 1, 1]
    assert [cosine(p) for p in (0, 0.5, 1)] == pytest.approx([1, 0.5, 0])
    assert [cosine(p, 0.2) for p in (0, 0.1, 0.2, 0.6, 1)] == pytest.approx([0, 0.5, 1, 0.5, 0])
    assert cosine(1 / 3) == pytest.approx(0.75)
    assert [step(p) for p in (0, 0.49, 0.5, 0.74, 0.75, 1)] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])
    assert step(0.1, (0.3,), 0.5, 0.2) == pytest.approx(0.5)
    assert step(0.9, (0.3,), 0.5, 0.2) == pytest.approx(0.5)
    assert step(0.9, (), 0.5) == 1


@dataclass(frozen=True)
class Inner:
    size: int
    names: tuple[str, ...] = ("a",)


@dataclass(frozen=True)
class Outer:
    inner: Inner
    factory: object = None


def test_describe_by_hand():
    here = __name__
    assert describe(None) is None
    assert describe((1, 2.5, "a", True)) == [1, 2.5, "a", True]
    assert describe({1: Inner(3)}) == {"1": {"_target_": f"{here}.Inner", "size": 3, "names": ["a"]}}
    assert describe(Outer(Inner(1, ()), partial(small_cnn, (1, 2), widths=(3,)))) == {
        "_target_": f"{here}.Outer",
        "inner": {"_target_": f"{here}.Inner", "size": 1, "names": []},
        "factory": {"_target_": "robustforge.nn.small_cnn.small_cnn", "args": [[1, 2]], "widths": [3]},
    }
    assert describe(torch.optim.SGD) == "torch.optim.sgd.SGD"
    assert describe(small_cnn) == "robustforge.nn.small_cnn.small_cnn"
    assert describe(TorchAttack("CW", {"c": 2}))["options"] == {"c": 2}
    settings = describe(Training(3, partial(torch.optim.SGD, lr=0.1), partial(cosine, warmup=0.1)))
    assert settings["optimizer"] == {"_target_": "torch.optim.sgd.SGD", "args": [], "lr": 0.1}
    assert settings["gradient_clip"] is None


@pytest.mark.parametrize(
    "changed",
    [
        {"attack": PGD(steps=11)}, {"attack": PGD(step_size=0.1)}, {"attack": PGD("other")}, {"loss": "mart"},
        {"threat": Threat("l2", 0.1)}, {"threat": Threat("linf", 0.1001)}, {"beta": 5.0}, {"clean_weight": 0.1},
    ],
    ids=str,
)  # fmt: skip
def test_every_setting_shows_in_the_description(changed):
    base = {"attack": PGD(steps=10), "threat": Threat("linf", 0.1)}
    assert describe(AdversarialLoss(**base)) == describe(AdversarialLoss(**base))
    assert describe(AdversarialLoss(**base)) != describe(AdversarialLoss(**{**base, **changed}))


@pytest.mark.parametrize(
    "value",
    [
        lambda: 1, object(), {1, 2}, [lambda: 1], partial(lambda: 1), functools.lru_cache(lambda: 1),
        Outer(Inner(1), lambda: 1),
    ],
    ids=lambda v: type(v).__name__,
)  # fmt: skip
def test_what_has_no_stable_description_is_refused(value):
    with pytest.raises(TypeError, match="no stable description"):
        describe(value)


def test_derived_seeds_are_pinned_and_apart():
    # a change here makes every stored product irreproducible
    assert derive_seed(0, "stack") == 1703459409
    assert derive_seed(7, "selector", "attack", 3) == 765005539
    paths = [(s, *p) for s in range(20) for p in (("a",), ("b",), ("a", 0), ("a", 1), ("a", "b"), ("init", "a"))]
    seeds = [derive_seed(*path) for path in paths]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_networks_are_built_the_same_whatever_was_built_before():
    make = partial(nn.Linear, 5, 5)
    torch.manual_seed(0)
    first = build_seeded(make, 3, "selector").weight
    state = torch.get_rng_state()
    second = build_seeded(make, 3, "selector").weight
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(17)
    build_seeded(make, 3, "stack")
    assert torch.equal(build_seeded(make, 3, "selector").weight, first)
    assert torch.equal(first, second)
    assert not torch.equal(build_seeded(make, 4, "selector").weight, first)
    assert not torch.equal(build_seeded(make, 3, "stack").weight, first)


def test_seed_everywhere():
    import random

    import numpy as np

    def draw():
        return random.random(), float(np.random.rand()), float(torch.rand(1))

    seed_everywhere(5)
    first = draw()
    second = draw()
    seed_everywhere(5)
    assert draw() == first
    assert all(a != b for a, b in zip(first, second, strict=True))
    assert not any(math.isclose(a, b) for a, b in zip(first, first[1:] + first[:1], strict=True))


def test_a_stage_needs_an_epoch():
    with pytest.raises(UserError, match="epochs is 0: give a whole number of at least 1"):
        Training(0, partial(torch.optim.SGD, lr=0.1), constant)
