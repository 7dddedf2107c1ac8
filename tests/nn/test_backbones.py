import logging

import pytest
import torch
from torch import nn

from robustforge.nn import vgg
from robustforge.nn.lenet import lenet
from robustforge.nn.normalize import Normalize
from robustforge.nn.resnet import resnet18, resnet34, resnet50
from robustforge.nn.small_cnn import small_cnn
from robustforge.nn.vgg import vgg16
from robustforge.nn.wide_resnet import wide_resnet28_10
from robustforge.types import UserError

GREY, COLOR, LARGE = (1, 28, 28), (3, 32, 32), (3, 64, 64)


def make(factory, shape, **options):
    return factory(shape, 10, [0.4] * shape[0], [0.2] * shape[0], **options)


@pytest.mark.parametrize(
    ("factory", "shape", "options"),
    [
        (small_cnn, GREY, {}),
        (small_cnn, COLOR, {"widths": [16, 16, 32], "batch_norm": True}),
        (small_cnn, (1, 8, 8), {"hidden": 16}),
        (lenet, GREY, {}),
        (lenet, COLOR, {}),
        (lenet, (2, 12, 20), {}),
        (resnet18, GREY, {}),
        (resnet18, COLOR, {"stem": "cifar_pool"}),
        (resnet18, LARGE, {"stem": "imagenet"}),
        (resnet34, COLOR, {"stem": "cifar_pool"}),
        (resnet50, GREY, {"stem": "cifar_pool"}),
        (wide_resnet28_10, COLOR, {"depth": 10, "width": 2, "dropout": 0.1}),
        (vgg16, GREY, {"pretrained": False}),
        (vgg16, COLOR, {"pretrained": False}),
    ],
)
def test_forward_and_backward(factory, shape, options):
    network = make(factory, shape, **options)
    x = torch.rand(2, *shape, requires_grad=True)
    logits = network(x)
    assert logits.shape == (2, 10)
    logits.square().sum().backward()
    assert x.grad.isfinite().all()
    assert x.grad.abs().sum() > 0
    assert all(p.grad is not None for p in network.parameters())


def test_vgg_without_weights_is_the_plain_one():
    with torch.device("meta"):
        kinds = {
            pretrained: any(isinstance(module, nn.BatchNorm2d) for module in vgg._features(pretrained))
            for pretrained in (None, False)
        }
    assert kinds == {None: False, False: True}


@pytest.mark.slow
def test_wide_resnet_backward_at_full_size():
    make(wide_resnet28_10, COLOR)(torch.rand(2, *COLOR)).sum().backward()


def test_known_parameter_counts():
    def count(network):
        return sum(p.numel() for p in network.parameters())

    assert count(make(wide_resnet28_10, COLOR)) == 36_479_194  # the paper's 36.5 M
    assert count(make(resnet18, COLOR)) == 11_173_962
    assert count(make(resnet50, COLOR)) == 23_520_842


def test_layer_table_of_classifier_a():
    network = make(resnet50, GREY, stem="cifar_pool").eval()[1]
    x, seen = torch.rand(1, *GREY), []
    for name, layer in network.named_children():
        x = layer(x.flatten(1) if name == "fc" else x)
        seen.append((name, tuple(x.shape[1:])))
    seen = dict(seen)
    assert seen["conv1"] == (64, 28, 28)
    assert seen["maxpool"] == (64, 14, 14)
    assert [seen[f"layer{i}"] for i in (1, 2, 3, 4)] == [(256, 14, 14), (512, 7, 7), (1024, 4, 4), (2048, 2, 2)]
    assert network.layer2[0].conv2.stride == (2, 2)
    bound = (2 / (64 * 9)) ** 0.5  # Kaiming, fan out, of the replaced stem
    assert network.conv1.weight.std().item() == pytest.approx(bound, rel=0.15)


def test_normalization_is_inside():
    x = torch.rand(2, *COLOR)
    mean, std = [0.1, 0.2, 0.3], [0.5, 0.6, 0.7]
    expected = torch.stack([(x[:, c] - mean[c]) / std[c] for c in range(3)], 1)
    torch.testing.assert_close(Normalize(mean, std)(x), expected)
    assert "0.mean" in small_cnn(COLOR, 10, mean, std).state_dict()


def test_channels_are_checked():
    with pytest.raises(UserError, match=r"3 channels \(RGB\) but mean has 2"):
        small_cnn(COLOR, 10, [0.1, 0.2], [0.3, 0.3])
    one_for_all = Normalize([0.1], [0.3], channels=3)
    torch.testing.assert_close(one_for_all(torch.full((1, 3, 2, 2), 0.4)), torch.ones(1, 3, 2, 2))
    with pytest.raises(UserError, match="positive"):
        Normalize([0.1], [0.0])
    with pytest.raises(ValueError, match=r"1 channel \(gray\).*3, 32, 32"):
        make(lenet, GREY)(torch.rand(2, *COLOR))
    with pytest.raises(ValueError, match=r"3 channels \(RGB\)"):
        make(resnet18, COLOR)(torch.rand(2, 1, 32, 32))


def test_errors_say_what_to_do():
    for call, says in (
        (lambda: make(resnet18, COLOR, stem="tiny"), "cifar, cifar_pool, imagenet"),
        (lambda: make(wide_resnet28_10, COLOR, depth=27), "6 n"),
        (lambda: make(small_cnn, (1, 8, 8), widths=[8] * 4), "at least 16"),
        (lambda: make(lenet, (1, 8, 8)), "at least 12"),
        (lambda: make(vgg16, (4, 32, 32), pretrained=False), "1 or 3"),
    ):
        with pytest.raises(UserError, match=says):
            call()


def test_vgg_pads_and_repeats():
    x = torch.rand(2, 1, 28, 28)
    y = vgg.ToVGGInput()(x)
    assert y.shape == (2, 3, 32, 32)
    assert torch.equal(y[:, 2, 2:30, 2:30], x[:, 0])
    assert y.sum().item() == pytest.approx(3 * x.sum().item(), rel=1e-4)
    assert vgg.ToVGGInput()(torch.rand(1, 3, 64, 48)).shape == (1, 3, 64, 48)


def test_vgg_warns_when_the_weights_cannot_be_fetched(monkeypatch, caplog):
    def offline(**_):
        raise OSError("no route to host")

    monkeypatch.setattr(vgg, "torchvision_vgg16", offline)
    with caplog.at_level(logging.WARNING):
        network = make(vgg16, GREY)
    assert "could not be fetched (no route to host)" in caplog.text
    assert any(isinstance(m, nn.BatchNorm2d) for m in network.modules())


def test_vgg_uses_pretrained_features(monkeypatch):
    plain = vgg.torchvision_vgg16(weights=None)
    asked = {}
    monkeypatch.setattr(vgg, "torchvision_vgg16", lambda **options: asked.update(options) or plain)
    assert make(vgg16, COLOR)[2] is plain.features
    assert asked["weights"] is vgg.VGG16_Weights.IMAGENET1K_V1
