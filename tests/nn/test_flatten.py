"""Flattened maps are in the usual order; their gradient comes back in the layout of the maps."""

import pytest
import torch

from robustforge.nn.flatten import FlattenMaps, flatten_maps


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (2, 3, 1, 1), (2, 1, 4, 5)])
def test_order_and_gradient(shape, layout):
    x = torch.rand(*shape).contiguous(memory_format=layout).requires_grad_(True)
    y = flatten_maps(x)
    assert torch.equal(y, x.flatten(1))
    weights = torch.rand_like(y)
    (first,) = torch.autograd.grad((weights * y.pow(3)).sum(), x, create_graph=True)
    torch.testing.assert_close(first, weights.view(shape) * 3 * x.square())
    assert first.is_contiguous(memory_format=layout)
    (second,) = torch.autograd.grad(first.sum(), x)
    torch.testing.assert_close(second, weights.view(shape) * 6 * x)


def test_layer():
    x = torch.rand(2, 3, 4, 5)
    assert torch.equal(FlattenMaps()(x), x.flatten(1))
