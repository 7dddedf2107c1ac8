"""ComDefend: a binary code, the loss of the paper, and the way back through the quantizer."""

import pytest
import torch
from torch import nn

from robustforge.defenses.comdefend.networks import CompressionNetwork, hard_bits
from robustforge.types import UserError


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 17, 23)], ids=str)
def test_networks_mirror_each_other_and_keep_the_size(shape):
    network = CompressionNetwork(shape, 5, (8, 16, 4))
    widths = [
        [layer.out_channels for layer in part if isinstance(layer, nn.Conv2d)]
        for part in (network.compress, network.reconstruct)
    ]
    assert widths == [[8, 16, 4, 5], [4, 16, 8, shape[0]]]
    assert isinstance(network.compress[-1], nn.Conv2d), "the code is linear"
    x = torch.rand(2, *shape)
    code = network.encode(x)
    assert code.shape[1:] == network.code_shape == (5, *shape[1:])
    rebuilt = network.decode(hard_bits(code, 1.0))
    assert rebuilt.shape == x.shape
    assert ((rebuilt >= 0) & (rebuilt <= 1)).all()
    assert sum(isinstance(layer, nn.ELU) for layer in network.modules()) == 6


def test_bits_are_exact_and_have_the_sigmoids_slope():
    code = torch.tensor([[-30.0, -0.1, 0.0, 0.1, 30.0]], requires_grad=True)
    bits = hard_bits(code, 10.0)
    assert bits.tolist() == [[0.0, 0.0, 0.0, 1.0, 1.0]]
    (slope,) = torch.autograd.grad(bits.sum(), code)
    soft = (code.detach() / 10).sigmoid()
    torch.testing.assert_close(slope, soft * (1 - soft) / 10)


def test_the_loss_by_hand(make_purifier, batch):
    defense = make_purifier("comdefend", penalty=0.5, noise_std=2.0)
    torch.manual_seed(4)
    terms = defense.losses(batch)
    torch.manual_seed(4)
    code = defense.network.compress(batch.x - 0.5)
    bits = 1 / (1 + torch.exp(-(code - 2.0 * torch.randn_like(code))))
    rebuilt = defense.network.reconstruct(bits).sigmoid()
    assert terms["mse"].item() == pytest.approx(((rebuilt - batch.x) ** 2).mean().item(), rel=1e-5)
    assert terms["penalty"].item() == pytest.approx(0.5 * (code**2).mean().item(), rel=1e-5)


def test_a_step_of_training_lowers_the_loss_of_both_networks(make_purifier, batch):
    defense = make_purifier("comdefend", noise_std=0.0)
    defense.enter(next(stage for stage in defense.stages() if stage.name == "network"))
    optimizer = torch.optim.SGD(defense.network.parameters(), lr=0.1)
    before = sum(defense.losses(batch).values())
    before.backward()
    assert all(weight.grad.any() for weight in defense.network.parameters())
    optimizer.step()
    assert sum(defense.losses(batch).values()) < before


def test_noise_stays_only_where_asked_and_is_averaged(make_purifier, batch):
    quiet, noisy = make_purifier("comdefend"), make_purifier("comdefend", inference_noise=1.0, draws=3)
    assert set(quiet.surfaces()) == {"end_to_end", "transfer", "bpda"}
    assert torch.equal(quiet.purify(batch.x), quiet.network.decode((quiet.network.encode(batch.x) > 0).float()))
    noisy.load_state_dict(quiet.state_dict())
    assert not torch.equal(noisy.purify(batch.x), quiet.purify(batch.x))
    assert torch.equal(noisy.purify(batch.x), noisy.purify(batch.x))
    assert {"eot", "fixed_noise"} <= set(noisy.surfaces())
    assert noisy.surfaces()["eot"].draws == 3


def test_an_attack_through_the_quantizer_has_a_gradient(make_purifier, batch):
    defense = make_purifier("comdefend")
    for surface in defense.surfaces().values():
        x = batch.x.clone().requires_grad_(True)
        (gradient,) = torch.autograd.grad(surface.logits(x, batch.y).square().sum(), x)
        assert gradient.flatten(1).any(1).all(), surface.name
    with pytest.raises(UserError, match="temperature above 0"):
        make_purifier("comdefend", surface_temperature=0.0)
