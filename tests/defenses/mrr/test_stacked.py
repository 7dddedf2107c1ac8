"""N networks in one pass equal N networks one after another; checkpoints are the layers they say."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from robustforge.defenses.mrr.networks import Checkpoints
from robustforge.defenses.mrr.stacked import StackedNetworks
from robustforge.defenses.mrr.stacked_layers import StackedLayers, stack, stackable
from robustforge.nn.lenet import lenet
from robustforge.nn.pooled_cnn import pooled_cnn
from robustforge.nn.resnet import resnet18
from robustforge.nn.small_cnn import small_cnn
from robustforge.types import UserError

GREY = {"shape": (1, 28, 28), "num_classes": 10, "mean": (0.3,), "std": (0.3,)}
SMALL = {"widths": (4, 4), "hidden": (12, 8)}


def build(kind, seed):
    torch.manual_seed(seed)
    if kind == "resnet":
        network = resnet18((3, 8, 8), 5, (0.5,), (0.2,))
        for module in network.modules():  # running statistics that differ from copy to copy
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 2)
        return network.eval()
    made = {"small": small_cnn, "lenet": lenet, "pooled": pooled_cnn}[kind]
    return made(
        **GREY, **({"widths": (4, 8), "hidden": 16} if kind == "small" else SMALL if kind == "pooled" else {})
    ).eval()


@pytest.mark.parametrize(
    ("kind", "count", "size"), [("small", 16, 4), ("small", 5, 12), ("pooled", 3, 4), ("lenet", 1, 4), ("resnet", 2, 4)]
)
def test_stacked_equals_one_by_one(kind, count, size):
    networks = [Checkpoints(build(kind, seed)).eval() for seed in range(count)]
    x = torch.rand(size, *((3, 8, 8) if kind == "resnet" else (1, 28, 28)))
    logits, (features,) = StackedNetworks(networks).to(memory_format=torch.channels_last)(x)
    assert logits.shape[:2] == features.shape[:2] == (count, size)
    with torch.no_grad():
        for number, network in enumerate(networks):
            alone, (feature,) = network(x)
            torch.testing.assert_close(logits[number], alone, atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(features[number], feature, atol=1e-5, rtol=1e-5)


def test_stacked_gradients_and_reloading():
    networks = [Checkpoints(build("small", seed)).eval() for seed in range(3)]
    stack = StackedNetworks(networks)
    x = torch.rand(2, 1, 28, 28, requires_grad=True)
    (gradient,) = torch.autograd.grad(stack(x)[0].sum(), x)
    (alone,) = torch.autograd.grad(sum(network(x)[0].sum() for network in networks), x)
    torch.testing.assert_close(gradient, alone, atol=1e-5, rtol=1e-4)
    with torch.no_grad():
        networks[1].network[1].weight.add_(0.1)
    assert not torch.allclose(stack(x)[0][1], networks[1](x)[0])
    stack.load(networks)
    torch.testing.assert_close(stack(x)[0][1], networks[1](x)[0])
    assert len(stack.state_dict()) == len(networks[0].state_dict())


@pytest.mark.parametrize(("count", "size"), [(1, 3), (3, 1), (3, 9)])
@pytest.mark.parametrize("options", [{}, {"batch_norm": True}, {"linear_convolutions": True}])
def test_stacked_layers_equal_one_by_one(options, count, size):
    networks = []
    for seed in range(count):
        torch.manual_seed(seed)
        network = pooled_cnn(**GREY, **SMALL, **options)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 2)
        networks.append(Checkpoints(network, ["3", "penultimate", "2"], pool=2).eval())
    stacked = stack(networks).to(memory_format=torch.channels_last)
    assert isinstance(stacked, StackedLayers)
    x = torch.rand(size, 1, 28, 28, requires_grad=True)
    stacked.train()  # whatever its parent is switched to, dropout and running statistics stay out
    logits, features = stacked(x)
    (gradient,) = torch.autograd.grad(sum(f.square()[..., 0].sum() for f in features) + logits.sum(), x)
    expected = 0
    for number, network in enumerate(networks):
        alone, alone_features = network(x)
        torch.testing.assert_close(logits[number], alone, atol=1e-5, rtol=1e-5)
        for found, feature in zip(features, alone_features, strict=True):
            torch.testing.assert_close(found[number], feature, atol=1e-5, rtol=1e-5)
        expected = expected + sum(f.square()[..., 0].sum() for f in alone_features) + alone.sum()
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, x)[0], atol=1e-5, rtol=1e-4)
    state = {name: value.clone() for name, value in stacked.state_dict().items()}
    stacked.load(networks)
    assert all(torch.equal(value, state[name]) for name, value in stacked.state_dict().items())


def test_only_plain_sequences_are_stacked_by_layers():
    assert stackable(Checkpoints(build("pooled", 0)))
    assert stackable(Checkpoints(build("small", 0)))
    assert not stackable(Checkpoints(build("resnet", 0)))
    assert isinstance(stack([Checkpoints(build("resnet", 0))]), StackedNetworks)
    reflecting = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1, padding_mode="reflect"), nn.Flatten(), nn.Linear(1568, 10))
    assert not stackable(Checkpoints(reflecting))


def test_checkpoints_are_unit_features_of_the_named_layers():
    network = build("pooled", 0)
    made = Checkpoints(network, ["penultimate", "3", "11"], pool=2).eval()
    x = torch.rand(3, 1, 28, 28)
    logits, (last, maps, dense) = made(x)
    assert torch.equal(logits, network(x))
    torch.testing.assert_close(last, F.normalize(network[:-1](x), dim=1))
    torch.testing.assert_close(maps, F.normalize(F.adaptive_avg_pool2d(network[:4](x), 2).flatten(1), dim=1))
    torch.testing.assert_close(dense, F.normalize(network[:12](x), dim=1))
    assert made.sizes((1, 28, 28)) == [8, 16, dense.shape[1]]
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


def test_impossible_layers():
    with pytest.raises(UserError, match="no layer 'fc9'"):
        Checkpoints(build("small", 0), ["fc9"])
    with pytest.raises(UserError, match="no linear layer"):
        Checkpoints(nn.Sequential(nn.Flatten()))
    with pytest.raises(UserError, match="at least one layer"):
        Checkpoints(build("small", 0), [])


def test_pooled_cnn_has_the_released_sizes():
    mnist = pooled_cnn(**GREY, linear_convolutions=True)
    dense = [module for module in mnist if isinstance(module, nn.Linear)]
    assert [(m.in_features, m.out_features) for m in dense] == [(1568, 200), (200, 200), (200, 10)]
    assert sum(isinstance(module, nn.ReLU) for module in mnist) == 2
    cifar = pooled_cnn((3, 32, 32), 10, (0.5,), (0.2,), widths=(64, 128), hidden=(256, 256), batch_norm=True)
    assert next(m for m in cifar if isinstance(m, nn.Linear)).in_features == 8192
    assert cifar.eval()(torch.rand(2, 3, 32, 32)).shape == (2, 10)
    with pytest.raises(UserError, match="halves an image 2 times"):
        pooled_cnn((1, 3, 3), 2, (0.5,), (0.2,))
