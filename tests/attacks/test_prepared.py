"""Weights prepared for bf16: the same answers, the networks as they were, and what may not be folded is not."""

from contextlib import contextmanager

import pytest
import torch
from torch import nn

from robustforge.attacks.core import prepared, session
from robustforge.attacks.core.prepared import Prepared
from robustforge.attacks.core.session import attacking
from robustforge.attacks.core.surface import Surface, compiled, end_to_end
from robustforge.attacks.fgsm import FGSM
from robustforge.attacks.pgd import PGD
from robustforge.defenses.base import classify
from robustforge.losses.classification import cross_entropy_per_sample
from robustforge.nn.gray_conv import GrayConv2d
from robustforge.types import DefenseOutput, Threat

THREAT = Threat("linf", 0.1)
X = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
Y = torch.arange(6) % 3
ATTACK = PGD(steps=4, precision="bf16", early_stop=False)


class Net(nn.Module):
    """Two convolutions, each with its batch norm; ``how`` the first answer is used otherwise, if at all."""

    def __init__(self, how="plain"):
        super().__init__()
        self.how = how
        self.conv1, self.conv2 = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.bn1, self.bn2, self.head = nn.BatchNorm2d(4), nn.BatchNorm2d(4), nn.Linear(4 * 64, 3)

    def forward(self, x):
        h = self.conv1(x)
        if self.how == "written":
            h.mul_(0.5)
        after = self.bn1(h)
        if self.how == "added":
            after = after + h
        if self.how == "twice":
            after = self.bn1(self.conv1(x) + 1) + after
        return self.head(self.bn2(self.conv2(after.relu())).relu().flatten(1))


def made(how="plain"):
    torch.manual_seed(0)
    network = Net(how)
    for norm in (network.bn1, network.bn2):
        for values, low in ((norm.running_mean, -1.0), (norm.running_var, 0.5), (norm.weight.data, 0.5)):
            values.uniform_(low, 1.5)
        norm.bias.data.uniform_(-1, 1)
    return network.eval()


def folded(network, count=2):
    """Batch norms that are left out in the pass after ``count`` passes."""
    found = []
    with attacking(classify(network)["end_to_end"], X, Y, THREAT, precision="bf16") as attack:
        for _ in range(count):
            attack.gradient(X, attack.everyone(), cross_entropy_per_sample)
        with attack._prepared.passing(True):
            found += [name for name, part in network.named_modules() if "forward" in vars(part)]
    assert not any("forward" in vars(part) for part in network.modules())
    return found


def unprepared(monkeypatch):
    @contextmanager
    def passing(self, bf16, graph=False):
        yield

    monkeypatch.setattr(Prepared, "passing", passing)


def test_cast_weights_change_no_bit(monkeypatch):
    torch.manual_seed(0)
    network = nn.Sequential(GrayConv2d(4, 4, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
    ready = ATTACK(network, X, Y, THREAT)
    unprepared(monkeypatch)
    assert torch.equal(ready.x_adv, ATTACK(network, X, Y, THREAT).x_adv)


def test_folded_networks_answer_as_before():
    network, surface = made(), classify(made())["end_to_end"]
    with attacking(surface, X, Y, THREAT, precision="float32") as attack:
        exact, _, _ = attack.gradient(X, attack.everyone(), cross_entropy_per_sample)
    errors = []
    with attacking(surface, X, Y, THREAT, precision="bf16") as attack:
        for _ in range(2):  # the first by autocast, the second folded
            gradient, _, _ = attack.gradient(X, attack.everyone(), cross_entropy_per_sample)
            errors.append(float((gradient - exact).norm() / exact.norm()))
    assert errors[0] != errors[1]
    assert max(errors) < 0.03
    assert folded(network) == ["bn1", "bn2"]


@pytest.mark.parametrize(
    ("how", "left"), [("plain", ["bn1", "bn2"]), ("written", ["bn2"]), ("added", ["bn2"]), ("twice", ["bn2"])]
)
def test_only_what_follows_a_convolution_alone_is_folded(how, left):
    assert folded(made(how)) == left


def test_what_others_look_at_is_not_folded():
    network = made()
    network.conv1.register_forward_hook(lambda *_: None)
    assert folded(network) == ["bn2"]
    assert folded(made().requires_grad_(False), count=1) == ["bn1", "bn2"]


def test_a_first_pass_without_gradients_tells_of_casts_alone():
    network = made()
    with attacking(classify(network)["end_to_end"], X, Y, THREAT, precision="bf16") as attack:
        for passed in (attack.logits, attack.logits):
            passed(X, attack.everyone())
        with attack._prepared.passing(True):
            assert network.conv1.weight.dtype == torch.bfloat16
            assert "forward" not in vars(network.bn1)
        attack.gradient(X, attack.everyone(), cross_entropy_per_sample)
        with attack._prepared.passing(True):
            assert "forward" in vars(network.bn1)


def test_the_system_is_judged_by_its_own_weights():
    network, seen = made(), []

    def system(x):
        seen.append(network.conv1.weight.dtype)
        return DefenseOutput(network(x))

    ATTACK(end_to_end(system, network), X, Y, THREAT)
    judging, attacking_passes = seen[-1], seen[:-1]
    assert judging == torch.float32
    assert attacking_passes.count(torch.bfloat16) == 3  # of 4: the first is watched
    with attacking(end_to_end(system, network), X, Y, THREAT, precision="bf16") as attack:
        for _ in range(2):
            attack.gradient(X, attack.everyone(), cross_entropy_per_sample)
        seen.clear()
        attack.fools(X)
        attack.logits(X, attack.everyone(), exact=True)
    assert seen == [torch.float32, torch.float32]


def test_a_single_pass_and_float32_prepare_nothing(monkeypatch):
    monkeypatch.setattr(prepared, "_cast", lambda *_: pytest.fail("prepared"))
    FGSM(precision="bf16")(made(), X, Y, THREAT)
    PGD(steps=3, precision="float32")(made(), X, Y, THREAT)


def test_an_error_in_a_pass_puts_the_weights_back():
    network = made()
    before = dict(network.conv1.named_parameters())
    with (
        pytest.raises(RuntimeError, match="broken"),
        attacking(classify(network)["end_to_end"], X, Y, THREAT, precision="bf16") as attack,
    ):
        attack.gradient(X, attack.everyone(), cross_entropy_per_sample)
        with attack._prepared.passing(True):
            assert network.conv1.weight is not before["weight"]
            raise RuntimeError("broken")
    assert all(value is before[name] for name, value in network.conv1.named_parameters())
    assert not network.conv1._forward_hooks


def test_weights_are_prepared_again_after_training():
    network = made()
    with attacking(classify(network)["end_to_end"], X, Y, THREAT, precision="bf16") as attack:
        for _ in range(2):
            attack.gradient(X, attack.everyone(), cross_entropy_per_sample)
        network.head.weight.data.add_(1.0)
        network.bn1.running_mean.add_(1.0)
        attack._prepared.refresh()
        with attack._prepared.passing(True):
            assert torch.equal(network.head.weight, made().head.weight.add(1.0).bfloat16())
            shifted = network.conv1.bias.float()
    scale = made().bn1.weight * (made().bn1.running_var + 1e-5).rsqrt()
    expected = (made().conv1.bias - made().bn1.running_mean - 1) * scale + made().bn1.bias
    torch.testing.assert_close(shifted, expected, atol=0.02, rtol=0.02)


@pytest.mark.parametrize("kind", ["surface", "module", "function"])
def test_compiled_networks_are_left_alone(kind):
    network, reference = made(), made()
    if kind == "surface":
        surface = compiled(classify(network)["end_to_end"], backend="eager")
    else:
        quick = torch.compile(network if kind == "module" else lambda x: network(x), backend="eager")
        surface = session.as_surface(quick)
    assert Prepared(surface)._networks == []
    assert len(Prepared(session.as_surface(reference))._networks) > 3


def test_surfaces_of_several_functions_profit_too():
    """A purifier before a classifier: both are behind one function."""
    network, purifier = made(), nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.BatchNorm2d(1)).eval()
    both = nn.ModuleList([purifier, network])
    surface = Surface("s", lambda x, _: (network(purifier(x)),), lambda x, _: DefenseOutput(network(purifier(x))), both)
    with attacking(surface, X, Y, THREAT, precision="bf16") as attack:
        attack.gradient(X, attack.everyone(), cross_entropy_per_sample)
        with attack._prepared.passing(True):
            assert all("forward" in vars(norm) for norm in (purifier[1], network.bn1, network.bn2))
