import pytest
import torch
from torch import nn

from robustforge.defenses.memdef.networks import TargetClassifier, decoder, encoder
from robustforge.types import UserError


def count(module):
    return sum(p.numel() for p in module.parameters())


def shapes(module, x, kinds):
    out = []
    for layer in module:
        x = layer(x)
        if isinstance(layer, kinds):
            out.append(tuple(x.shape[1:]))
    return out


def test_parameter_counts_of_fashion_mnist():
    assert count(encoder((1, 28, 28))) == 23_392  # batch normalization included
    assert count(decoder((1, 28, 28))) == 23_329
    assert count(TargetClassifier((1, 28, 28), 10)) == 102_550


def test_layer_table_of_fashion_mnist():
    encode, decode = encoder((1, 28, 28)).eval(), decoder((1, 28, 28)).eval()
    assert shapes(encode, torch.rand(1, 1, 28, 28), nn.Conv2d) == [(16, 15, 15), (32, 8, 8), (64, 4, 4)]
    assert encode.dim == 1024
    assert shapes(decode, torch.rand(1, 1024), nn.ConvTranspose2d) == [(32, 7, 7), (16, 14, 14), (1, 28, 28)]
    assert encode[0].kernel_size == (1, 1)
    assert isinstance(decode[-1], nn.ConvTranspose2d)


@pytest.mark.parametrize(("reading", "kernel"), [("b", (3, 3)), ("c", (2, 2))])
def test_layer_table_of_cifar10(reading, kernel):
    encode, decode = encoder((3, 32, 32), reading).eval(), decoder((3, 32, 32), reading).eval()
    assert shapes(encode, torch.rand(1, 3, 32, 32), nn.Conv2d) == [(64, 16, 16), (128, 8, 8), (128, 4, 4), (256, 2, 2)]
    assert encode.dim == 1024
    assert shapes(decode, torch.rand(1, 1024), nn.ConvTranspose2d) == [
        (256, 4, 4), (128, 8, 8), (128, 16, 16), (3, 32, 32)
    ]  # fmt: skip
    assert {layer.kernel_size for layer in encode if isinstance(layer, nn.Conv2d)} == {kernel}


@pytest.mark.parametrize(("shape", "features"), [((1, 28, 28), (256, 256)), ((3, 32, 32), (400, 256))])
def test_layer_table_of_classifier_b(shape, features):
    classify = TargetClassifier(shape, 10)
    linear = [(m.in_features, m.out_features) for m in classify if isinstance(m, nn.Linear)]
    assert linear == [features, (256, 128), (128, 10)]
    assert classify(torch.rand(2, *shape)).shape == (2, 10)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("size", [(8, 8), (28, 28), (29, 29), (30, 30), (31, 35), (32, 32), (64, 64), (33, 28)])
@pytest.mark.parametrize(("reading", "kernel"), [("b", 1), ("b", 3), ("c", 1)])
def test_decoder_returns_the_exact_size(channels, size, reading, kernel):
    if channels > 1 and reading == "c" and min(size) < 16:
        pytest.skip("too small for reading c, tested below")
    shape = (channels, *size)
    encode = encoder(shape, reading=reading, first_kernel=kernel).eval()
    z = encode(torch.rand(2, *shape))
    assert z.shape == (2, encode.dim)
    assert decoder(shape, reading=reading).eval()(z).shape == (2, *shape)


def test_first_kernel_decides_which_pixels_have_a_gradient():
    for kernel, seen in ((1, 0.25), (3, 1.0)):
        torch.manual_seed(0)
        x = torch.rand(1, 1, 28, 28, requires_grad=True)
        encoder((1, 28, 28), first_kernel=kernel).eval()(x).square().sum().backward()
        assert (x.grad != 0).float().mean().item() == pytest.approx(seen)


def test_ranges():
    z = encoder((1, 28, 28))(torch.rand(4, 1, 28, 28))
    assert z.min() > 0
    assert z.max() < 1
    bounded = decoder((1, 28, 28), sigmoid=True)(100 * torch.randn(4, 1024))
    assert bounded.min() >= 0
    assert bounded.max() <= 1


def test_errors():
    with pytest.raises(UserError, match="choose b"):
        encoder((3, 32, 32), reading="a")
    with pytest.raises(UserError, match="first_kernel"):
        encoder((1, 28, 28), first_kernel=2)
    with pytest.raises(UserError, match="at least 16"):
        decoder((3, 8, 32), reading="c")
    with pytest.raises(UserError, match="at least 16"):
        TargetClassifier((1, 8, 8), 10)
