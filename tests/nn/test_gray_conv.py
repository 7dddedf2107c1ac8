"""The quick first convolution is the ordinary one: weights, answers, gradients, gradients of gradients."""

import pytest
import torch
from torch import nn

from robustforge.nn.gray_conv import GrayConv2d

SETTINGS = [(4, 2, 1), (3, 1, 1), (5, 3, 0)]


def pair(kernel, stride, padding, bias):
    torch.manual_seed(0)
    ours = GrayConv2d(6, kernel, stride, padding, bias=bias)
    theirs = nn.Conv2d(1, 6, kernel, stride=stride, padding=padding, bias=bias)
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def gradients(layer, x, *, bf16=False):
    x = x.clone().requires_grad_(True)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        y = layer(x)
    wanted = [x, *layer.parameters()]
    return y, torch.autograd.grad(y.float().square().sum(), wanted, create_graph=not bf16), wanted


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("kernel", "stride", "padding"), SETTINGS)
def test_the_same_as_the_ordinary_one(kernel, stride, padding, bias):
    x = torch.rand(3, 1, 13, 11)
    found = [gradients(layer, x) for layer in pair(kernel, stride, padding, bias)]
    torch.testing.assert_close(found[0][0], found[1][0])
    for mine, other in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-4)
    second = [torch.autograd.grad(first[0].square().sum(), wanted) for _, first, wanted in found]
    for mine, other in zip(*second, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-2)


def test_half_precision():
    x = torch.rand(3, 1, 28, 28)
    (y, mine, _), (z, other, _) = (gradients(layer, x, bf16=True) for layer in pair(4, 2, 1, True))
    assert y.dtype == z.dtype == torch.bfloat16
    assert [value.dtype for value in mine] == [torch.float32] * 3
    for a, b in zip((y, *mine), (z, *other), strict=True):
        assert (a - b).norm() < 0.02 * b.norm()


def test_what_follows_is_channels_last():
    layer, _ = pair(4, 2, 1, True)
    for x in (torch.rand(2, 1, 28, 28), torch.rand(2, 1, 28, 28).to(memory_format=torch.channels_last)):
        assert layer(x).stride()[1] == 1
