import pytest
import torch
from torch import nn

from robustforge.defenses.gmvae.networks import mixture_decoder, mixture_encoder, reconstruction_error
from robustforge.types import UserError


def shapes(module, x, kinds):
    out = []
    for layer in module:
        x = layer(x)
        if isinstance(layer, kinds):
            out.append(tuple(x.shape[1:]))
    return out


@pytest.mark.parametrize(
    ("shape", "pooled", "dense", "raised"),
    [
        ((1, 28, 28), [(32, 14, 14), (64, 7, 7)], (3136, 256), [(64, 14, 14), (32, 28, 28)]),
        (
            (3, 32, 32), [(64, 16, 16), (128, 8, 8), (256, 4, 4)], (4096, 512),
            [(128, 8, 8), (64, 16, 16), (64, 32, 32)],
        ),
        (
            (3, 128, 128), [(32, 64, 64), (64, 32, 32), (128, 16, 16), (128, 8, 8), (256, 4, 4)], (4096, 512),
            [(256, 8, 8), (128, 16, 16), (128, 32, 32), (64, 64, 64), (32, 128, 128)],
        ),
    ],
)  # fmt: skip
def test_layer_tables(shape, pooled, dense, raised):
    encode, decode = mixture_encoder(shape, 100), mixture_decoder(shape, 100)
    assert shapes(encode, torch.rand(1, *shape), nn.MaxPool2d) == pooled
    linear = [(m.in_features, m.out_features) for m in encode if isinstance(m, nn.Linear)]
    assert linear == [dense, (dense[1], 100)]
    assert [(m.in_features, m.out_features) for m in decode if isinstance(m, nn.Linear)] == [
        (100, dense[1]), (dense[1], dense[0])
    ]  # fmt: skip
    convolutions = shapes(decode, torch.rand(1, 100), nn.Conv2d)
    assert convolutions == [*raised, shape]
    assert isinstance(decode[-1], nn.Sigmoid)
    assert isinstance(encode[-1], nn.Linear)


@pytest.mark.parametrize("side", [28, 32, 64, 128])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_every_size_round_trips_and_learns(side, batch_norm):
    torch.manual_seed(0)
    encode = mixture_encoder((3, side, side), 7, width=0.1, batch_norm=batch_norm)
    decode = mixture_decoder((3, side, side), 7, width=0.1, batch_norm=batch_norm)
    x = torch.rand(2, 3, side, side)
    z = encode(x)
    rebuilt = decode(z)
    assert z.shape == (2, 7)
    assert rebuilt.shape == x.shape
    assert 0 <= rebuilt.min() <= rebuilt.max() <= 1
    reconstruction_error(x, rebuilt).sum().backward()
    # a bias in front of batch normalization, or a unit that is always off, would have no gradient
    for module in (encode, decode):
        assert all(p.grad is not None and p.grad.isfinite().all() for p in module.parameters())
        assert sum(float(p.grad.abs().sum() > 0) for p in module.parameters()) >= 0.7 * len(list(module.parameters()))


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 28, 32), (3, 224, 224)])
def test_sizes_without_a_layout_are_refused(shape):
    for build in (mixture_encoder, mixture_decoder):
        with pytest.raises(UserError, match="28, 32, 64, 128"):
            build(shape, 10)


def test_width_scales_and_must_be_positive():
    assert mixture_encoder((1, 28, 28), 10, width=0.5)[0].out_channels == 16
    with pytest.raises(UserError, match="above 0"):
        mixture_decoder((1, 28, 28), 10, width=0)


def test_reconstruction_error_by_hand():
    x, rebuilt = torch.zeros(2, 1, 2, 2), torch.full((2, 1, 2, 2), 0.5)
    assert reconstruction_error(x, rebuilt).tolist() == [1.0, 1.0]
