"""PixelDefend among the purifiers: its loss, its risk, and the identity on the way back."""

import pytest
import torch

from robustforge.defenses.pixel_defend.raster import purify
from robustforge.types import UserError


def test_the_loss_is_what_the_risk_measures(make_purifier, batch):
    defense = make_purifier("pixel_defend")
    output = defense(batch.x)
    torch.testing.assert_close(defense.losses(batch)["bits"], output.risk.mean())
    plain = make_purifier("pixel_defend", only_likelier=False)
    assert torch.equal(plain(batch.x).purified, purify(plain.pixelcnn, batch.x, plain.eps_defend))
    assert (defense.bits(output.purified) <= output.risk + 1e-3).all(), "but for the rounding to gray levels"
    torch.testing.assert_close(defense.likelihood_metrics(batch)["bits"], output.risk)


def test_a_step_of_training_makes_images_likelier(make_purifier, batch):
    defense = make_purifier("pixel_defend", average=0.9)
    stage = next(stage for stage in defense.stages() if stage.name == "pixelcnn")
    assert (stage.average, stage.uses) == (0.9, ())
    defense.enter(stage)
    optimizer = torch.optim.SGD(defense.pixelcnn.parameters(), lr=1e-3)
    before = defense.losses(batch)["bits"]
    before.backward()
    optimizer.step()
    assert defense.losses(batch)["bits"] < before
    assert all(weight.grad is None for weight in defense.undefended.parameters())


def test_end_to_end_is_the_identity_on_the_way_back_and_differentiates_the_risk(make_purifier, batch):
    defense = make_purifier("pixel_defend")
    gradients = []
    for name in ("end_to_end", "bpda"):
        x = batch.x.clone().requires_grad_(True)
        logits = defense.surfaces()[name].logits(x, batch.y)
        gradients.append(torch.autograd.grad(logits.square().sum(), x)[0])
    assert torch.equal(*gradients)
    assert gradients[0].any()
    x = batch.x.clone().requires_grad_(True)
    answer = defense.surfaces()["end_to_end"].answer(x, batch.y)
    assert torch.autograd.grad(answer.risk.sum(), x)[0].any()


def test_the_search_is_not_part_of_what_is_trained(make_purifier, batch):
    """Another distance is another answer of the same networks."""
    near, far = make_purifier("pixel_defend", eps_defend=0.02), make_purifier("pixel_defend", eps_defend=0.2)
    moved = [(defense.purify(batch.x) - batch.x).abs().max().item() for defense in (near, far)]
    assert moved[0] <= 0.02 + 1e-5 < moved[1] <= 0.2 + 1e-5
    assert near.diagnostics(batch)["bits_gained"].shape == (16,)
    with pytest.raises(UserError, match="between 0 and 1"):
        make_purifier("pixel_defend", eps_defend=32)
