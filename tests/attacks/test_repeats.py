"""Runs that go round in a circle stop early, with the result of all their steps."""

import pytest
import torch
from torch import nn

from robustforge.attacks.bim import BIM
from robustforge.attacks.core.surface import Surface
from robustforge.attacks.pgd import PGD
from robustforge.types import DefenseOutput, Threat

EPS = 0.1
THREAT = Threat("linf", EPS)


class Waves(nn.Module):
    """Two classes; the margin is a sum of waves of the pixels, in float64, so that no batch changes a gradient's sign."""

    def __init__(self, noise=None):
        super().__init__()
        self.pace = torch.linspace(5, 60, 36, dtype=torch.float64)
        self.noise = noise

    def forward(self, x):
        flat = x.flatten(1).double()
        margin = (flat * self.pace).sin().sum(1) - 40 + (0 if self.noise is None else self.noise(len(x)))
        return torch.stack([torch.zeros_like(margin), margin], 1).float()


def surface_of(network):
    return Surface("s", lambda x, _: (network(x),), lambda x, _: DefenseOutput(network(x)), network)


def case():
    x = torch.rand(12, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    return x, torch.zeros(12, dtype=torch.int64)


def all_steps(network, start, x, steps, size):
    """The loop as one writes it down."""
    found = start
    for _ in range(steps):
        leaf = found.clone().requires_grad_(True)
        logits = network(leaf)
        (gradient,) = torch.autograd.grad((logits[:, 1] - logits[:, 0]).sum(), leaf)
        low, high = (x - EPS).clamp(min=0), (x + EPS).clamp(max=1)
        found = torch.clamp(found + size * gradient.sign(), low, high)
    return found


@pytest.mark.parametrize("steps", [*range(30, 38), 61])
@pytest.mark.parametrize("early_stop", [True, False])
def test_bit_identical_to_all_steps(steps, early_stop):
    x, y = case()
    settings = {"loss": "margin", "early_stop": early_stop, "precision": "float32"}
    result = BIM(steps=steps, step_size=0.03, **settings)(surface_of(Waves()), x, y, THREAT)
    assert torch.equal(result.x_adv, all_steps(Waves(), x, x, steps, 0.03))
    assert (result.backwards <= steps).all()
    assert result.backwards.float().mean() < 0.7 * steps


def test_pgd_with_restarts_side_by_side():
    x, y = case()
    surface = surface_of(Waves())
    attack = PGD(steps=50, step_size=0.03, restarts=3, loss="margin", precision="float32")
    result = attack(surface, x, y, THREAT)
    assert (result.backwards < 0.7 * 150).all()
    # a network that moves PyTorch's generator is not taken to repeat itself, and pays for all steps
    drawing = surface_of(Waves(lambda count: 0 * torch.rand(count)))
    whole = attack(drawing, x, y, THREAT)
    assert torch.equal(result.x_adv, whole.x_adv)
    assert torch.equal(result.success, whole.success)
    assert (whole.backwards == 150).all()
    for name in ("zero_gradient", "loss_gain"):
        assert torch.equal(getattr(result.trace, name), getattr(whole.trace, name))


def test_an_image_in_a_corner_does_not_move_on():
    x = torch.full((2, 1, 6, 6), 0.5)
    network = nn.Sequential(nn.Flatten(), nn.Linear(36, 2))
    with torch.no_grad():
        network[1].weight.copy_(torch.stack([torch.zeros(36), torch.ones(36)]))
        network[1].bias.copy_(torch.tensor([100.0, 0.0]))
    attack = BIM(steps=200, step_size=0.03, precision="float32")
    result = attack(surface_of(network), x, torch.zeros(2, dtype=torch.int64), THREAT)
    assert torch.equal(result.x_adv, x + EPS)
    assert (result.backwards <= 10).all()


@pytest.mark.parametrize(
    "noise",
    [
        lambda generator: lambda count: 0.01 * torch.randn(count),
        lambda generator: lambda count: 0.01 * torch.randn(count, generator=generator),  # of its own: the value tells
    ],
    ids=["global", "own"],
)
def test_a_network_that_answers_at_random_gets_all_steps(noise):
    x, y = case()
    network = Waves(noise(torch.Generator().manual_seed(3)))
    result = BIM(steps=40, step_size=0.03, loss="margin", precision="float32")(surface_of(network), x, y, THREAT)
    assert (result.backwards == 40).all()


def test_momentum_and_short_runs_are_left_alone():
    x, y = case()
    for attack in (
        BIM(steps=40, step_size=0.03, momentum=1.0, precision="float32"),
        PGD(steps=40, precision="float32"),
    ):
        assert (attack(surface_of(Waves()), x, y, THREAT).backwards == 40).all()
