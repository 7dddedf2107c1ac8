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
    overhead = api._overhead(victim, repetitions=1)
    assert overhead.bar == 1.02
    assert not overhead.higher_is_better
    seconds, lines = api._compare(victim, "torchattacks", api.with_torchattacks)
    assert "stand: ours" in seconds.note
    assert lines.ratio == 0.5
