"""Shapes of systems' table, and that a backbone in pieces is the backbone."""

import pytest
import torch
from torch import nn

from robustforge.defenses.dfl_pcl.centroids import Centroids, ClassMeans
from robustforge.defenses.dfl_pcl.networks import DefensiveFeatureNetwork
from robustforge.nn.lenet import lenet
from robustforge.nn.resnet import resnet18, resnet34, resnet50
from robustforge.nn.small_cnn import small_cnn
from robustforge.nn.wide_resnet import wide_resnet28_10
from robustforge.types import UserError

GREY, COLOR = (1, 28, 28), (3, 32, 32)


def make(factory, shape, **options):
    return factory(shape, 10, [0.4] * shape[0], [0.2] * shape[0], **options)


@pytest.mark.parametrize(
    ("factory", "shape", "maps", "d"),
    [
        (resnet18, COLOR, [(64, 32), (128, 16), (256, 8), (512, 4)], 960),
        (resnet34, GREY, [(64, 28), (128, 14), (256, 7), (512, 4)], 960),
        (resnet50, COLOR, [(256, 32), (512, 16), (1024, 8), (2048, 4)], 3840),
        (resnet50, GREY, [(256, 28), (512, 14), (1024, 7), (2048, 4)], 3840),
        (wide_resnet28_10, COLOR, [(160, 32), (320, 16), (640, 8)], 1120),
        (small_cnn, GREY, [(32, 14), (64, 7)], 96),
        (lenet, GREY, [(6, 14), (16, 5)], 22),
    ],
    ids=lambda part: getattr(part, "__name__", None),
)
def test_shapes(factory, shape, maps, d):
    network = DefensiveFeatureNetwork(make(factory, shape), shape, 10).eval()
    with torch.no_grad():
        output = network.respond(torch.rand(1, *shape))
    assert [tuple(stage.shape[1:]) for stage in output.maps] == [(c, side, side) for c, side in maps]
    assert output.features.shape == (1, d)
    assert output.logits.shape == (1, 10)
    assert network.dim == d
    assert network.widths == [c for c, _ in maps]
    assert network.classifier.bias is None
    extra = sum(p.numel() for branch in network.branches for p in branch.parameters())
    assert extra == sum(c * c + 2 * c for c, _ in maps[:-1])  # a 1 x 1 kernel and its batch normalization


def test_imagenet_stem_and_narrow_branches():
    network = DefensiveFeatureNetwork(make(resnet50, COLOR, stem="imagenet"), COLOR, 10, dfl_channels=256)
    with torch.no_grad():
        output = network.eval().respond(torch.rand(2, *COLOR))
    assert [stage.shape[-1] for stage in output.maps] == [8, 4, 2, 1]
    assert output.features.shape == (2, 2048 + 3 * 256)


@pytest.mark.parametrize("factory", [lenet, small_cnn, resnet18], ids=lambda f: f.__name__)
def test_stages_and_head_are_the_backbone(factory):
    network = make(factory, GREY).eval()
    x = torch.rand(2, *GREY)
    stages, head = network.split()
    assert torch.equal(head(nn.Sequential(*stages)(x)), network(x))
    pieces = {id(p) for part in (*stages, head) for p in part.parameters()}
    assert pieces == {id(p) for p in network.parameters()}


def test_wide_stages_and_head_are_the_backbone():
    network = make(wide_resnet28_10, COLOR, depth=10, width=2).eval()
    x = torch.rand(2, *COLOR)
    stages, head = network.split()
    assert torch.equal(head(nn.Sequential(*stages)(x)), network(x))
    assert (nn.Sequential(*stages)(x) >= 0).all(), "the last map is the activated one"


def test_features_by_hand():
    """Max-pooled branches behind the last map, averaged: Eq. 1 with numbers."""
    network = DefensiveFeatureNetwork(make(small_cnn, GREY, widths=[4, 8]), GREY, 10).eval()
    x = torch.rand(2, *GREY)
    with torch.no_grad():
        first = network.stages[0](x)
        last = network.stages[1](first)
        kernel = network.branches[0][0].weight[:, :, 0, 0]  # (in, out)
        mapped = (
            torch.einsum("bihw,io->bohw", first, kernel) / (1 + 1e-5) ** 0.5
        )  # fresh statistics: mean 0, variance 1
        pooled = mapped.relu().reshape(2, 4, 7, 2, 7, 2).amax((3, 5))  # 14 x 14 -> 7 x 7
        expected = torch.cat([last.mean((2, 3)), pooled.mean((2, 3))], 1)
        output = network.respond(x)
    torch.testing.assert_close(output.features, expected)
    torch.testing.assert_close(output.logits, expected @ network.classifier.weight.T)
    torch.testing.assert_close(output.pooled()[1], last.mean((2, 3)))


def test_off_and_pool_size():
    plain = DefensiveFeatureNetwork(make(small_cnn, GREY), GREY, 10, dfl=False)
    assert plain.dim == 64
    assert not list(plain.branches)
    assert DefensiveFeatureNetwork(make(small_cnn, GREY), GREY, 10, pool_size=3).dim == 96 * 9


def test_measuring_leaves_no_trace():
    backbone = make(resnet18, GREY)
    network = DefensiveFeatureNetwork(backbone, GREY, 10)
    assert all(module.training for module in network.modules())
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    assert all(int(norm.num_batches_tracked) == 0 for norm in norms)


def test_every_weight_learns():
    network = DefensiveFeatureNetwork(make(resnet18, GREY), GREY, 10)
    network(torch.rand(4, *GREY)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_errors_say_what_to_do():
    with pytest.raises(UserError, match="resnet50 or wide_resnet28_10"):
        DefensiveFeatureNetwork(nn.Sequential(nn.Flatten(), nn.Linear(784, 10)), GREY, 10)
    with pytest.raises(UserError, match="at least 1"):
        DefensiveFeatureNetwork(make(lenet, GREY), GREY, 10, dfl_channels=0)


def test_centroids_start_on_the_sphere():
    torch.manual_seed(0)
    torch.testing.assert_close(Centroids(5, 7).weight.norm(dim=1), torch.ones(5))
    assert Centroids(50, 70, unit=False).weight.std().item() == pytest.approx(1, rel=0.05)


def test_class_means_by_hand():
    means = ClassMeans(3, [2, 1], momentum=0.5)
    means.update([torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), torch.tensor([[1.0], [2.0], [3.0]])],
                 torch.tensor([0, 0, 2]))  # fmt: skip
    assert means.means[0].tolist() == [[2, 3], [0, 0], [5, 6]]
    means.update([torch.tensor([[6.0, 7.0]]), torch.tensor([[9.0]])], torch.tensor([0]))
    assert means.means[0].tolist() == [[4, 5], [0, 0], [5, 6]]
    assert means.means[1].flatten().tolist() == [5.25, 0, 3]


def test_pooling_to_the_same_size_is_left_out():
    network = DefensiveFeatureNetwork(make(small_cnn, GREY, widths=[4, 8]), GREY, 10, pool_size=7).eval()
    x = torch.rand(2, *GREY)
    with torch.no_grad():
        short = network.respond(x).features
        network.pooled = (0, 0)  # never the size of a map
        torch.testing.assert_close(short, network.respond(x).features)
