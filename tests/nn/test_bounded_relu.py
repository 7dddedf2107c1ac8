"""Bounded ReLUs: their values and slopes, and that no ReLU of ours is missed."""

import pytest
import torch
from torch import nn

from robustforge.nn.bounded_relu import bound_relus, open_bounds
from robustforge.nn.lenet import lenet
from robustforge.nn.pooled_cnn import pooled_cnn
from robustforge.nn.resnet import resnet18, resnet50
from robustforge.nn.small_cnn import small_cnn
from robustforge.nn.vgg import vgg16
from robustforge.nn.wide_resnet import wide_resnet28_10
from robustforge.types import UserError


def test_values_and_slopes_by_hand():
    (bounded,) = bound_relus(nn.Sequential(nn.ReLU()), 1.5)
    z = torch.tensor([-2.0, -0.1, 0.25, 1.0, 1.4, 1.6, 9.0], requires_grad=True)
    value = bounded(z)
    assert value.tolist() == pytest.approx([0, 0, 0.25, 1.0, 1.4, 1.5, 1.5])
    value.sum().backward()
    assert z.grad.tolist() == [0, 0, 1, 1, 1, 0, 0]


@pytest.mark.parametrize(
    ("factory", "options", "relus"),
    [
        (small_cnn, {}, 3),
        (lenet, {}, 4),
        (pooled_cnn, {}, 6),
        (resnet18, {}, 17),
        (resnet50, {}, 49),
        (wide_resnet28_10, {"depth": 10, "width": 1}, 7),
        (vgg16, {"pretrained": False}, 13),
    ],
)
def test_every_relu_of_our_networks_is_bounded(factory, options, relus):
    """Counted where they are called: a ReLU that is no module would be called without being found."""
    torch.manual_seed(0)
    network = factory((1, 32, 32), 10, [0.3], [0.3], **options).eval()
    names = list(network.state_dict())
    with torch.no_grad():
        plain = network(torch.rand(1, 1, 32, 32))
    assert bound_relus(network, 0.01) is network
    assert list(network.state_dict()) == names
    with torch.no_grad(), torch.profiler.profile() as profile:
        bounded = network(torch.rand(1, 1, 32, 32))
    calls = {event.key: event.count for event in profile.key_averages()}
    assert calls["aten::hardtanh"] + calls.get("aten::hardtanh_", 0) >= relus
    assert not {"aten::relu", "aten::relu_", "aten::clamp_min", "aten::clamp_min_"} & calls.keys()
    assert not torch.allclose(plain, bounded)


def test_open_bounds_have_a_slope_and_the_same_value():
    network = bound_relus(nn.Sequential(nn.ReLU()), 1.5)
    z = torch.tensor([-2.0, 0.25, 1.4, 1.6, 9.0], requires_grad=True)
    with open_bounds(network):
        value = network(z)
    assert torch.equal(value, network(z))
    value.sum().backward()
    assert z.grad.tolist() == [0, 1, 1, 1, 1]
    with pytest.raises(RuntimeError), open_bounds(network):
        raise RuntimeError
    assert not network[0].open
    assert "limit=1.5" in str(network)


def test_a_limit_that_is_never_reached_changes_nothing():
    torch.manual_seed(0)
    network, x = small_cnn((1, 28, 28), 10, [0.3], [0.3], widths=(4, 8), hidden=16), torch.rand(3, 1, 28, 28)
    plain = network(x)
    assert torch.equal(bound_relus(network, 1e6)(x), plain)


def test_what_cannot_be_bounded_is_refused():
    with pytest.raises(UserError, match="limit above 0"):
        bound_relus(nn.Sequential(nn.ReLU()), 0.0)
    with pytest.raises(UserError, match="no nn.ReLU"):
        bound_relus(nn.Sequential(nn.Linear(2, 2), nn.Tanh()), 1.0)
