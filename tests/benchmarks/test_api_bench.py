"""The benchmark of the front door measures what it says."""

import pytest
import torch
from benchmarks import api
from benchmarks._victims import Victim
from torch import nn

from robustforge.types import Threat


@pytest.fixture
def victim():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 5)).eval()
    x = torch.rand(6, 1, 8, 8)
    return Victim("linear", network, x, network(x).argmax(1), Threat("linf", 0.05))


def test_lines_are_those_of_the_body():
    assert (api.lines_of(api.with_robustforge), api.lines_of(api.with_torchattacks)) == (2, 4)


def test_all_three_attack_at_the_same_budget(victim):
    for call in (api.with_robustforge, api.with_torchattacks, api.with_foolbox):
        adversarial = call(victim.network, victim.x, victim.y, victim.threat.eps)
        assert (adversarial - victim.x).abs().max() <= 0.05 + 1e-6
        assert (victim.network(adversarial).argmax(1) != victim.y).any()


def test_rows_carry_both_sides(victim):
    overhead = api._overhead(victim, repetitions=2)
    assert overhead.valid, "both sides make the same images"
    assert overhead.bar == 1.02
    assert not overhead.higher_is_better
    seconds, lines = api._compare(victim, "torchattacks", api.with_torchattacks, seeds=2)
    assert "stand: ours" in seconds.note
    assert lines.ratio == 0.5


def left(*counts):
    """Images that both attacks left, ours alone, theirs alone, and none."""
    both, ours, theirs, none = counts
    mine = [True] * both + [True] * ours + [False] * theirs + [False] * none
    other = [True] * both + [False] * ours + [True] * theirs + [False] * none
    return torch.tensor(mine), torch.tensor(other)


def test_what_random_starts_explain_is_no_weakness():
    assert api.no_weaker(*left(50, 1, 0, 13)), "one image of 64, 1.6 points"
    assert api.no_weaker(*left(400, 6, 2, 104))
    assert api.no_weaker(*left(50, 0, 9, 5)), "ours is the stronger"
    assert not api.no_weaker(*left(400, 12, 2, 98))
    assert not api.no_weaker(*left(50, 5, 0, 9)), "five of five"
    assert api.no_weaker(*left(9000, 20, 0, 980)), "0.2 points"


def test_an_attack_of_fewer_steps_is_found_weaker(victim):
    def weak(model, x, y, eps, seed=0):
        return x

    strong = api.with_torchattacks(victim.network, victim.x, victim.y, 0.2)
    wide = Victim("linear", victim.network, victim.x, victim.y, Threat("linf", 0.2))
    pairs = [api.standing(wide, images, wide.threat) for images in (weak(None, wide.x, wide.y, 0.2), strong)]
    assert not api.no_weaker(*pairs)
