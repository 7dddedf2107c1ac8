"""APE-GAN: its losses by hand, and who learns at which step."""

import math

import pytest
import torch

from robustforge.defenses.ape_gan.losses import adversarial_loss, discriminator_loss, pixel_error
from robustforge.defenses.ape_gan.networks import Discriminator, Generator
from robustforge.types import UserError


def test_pixel_errors_by_hand():
    clean = torch.tensor([[0.0, 0.5], [1.0, 0.25]]).view(2, 1, 1, 2)
    rebuilt = torch.tensor([[0.1, 0.5], [0.7, 0.25]]).view(2, 1, 1, 2)
    mse = 4 * (0.1**2 + 0.3**2) / 4  # pixels in [-1, 1] are twice as far apart
    assert pixel_error(rebuilt, clean, "mse").item() == pytest.approx(mse, rel=1e-5)
    assert pixel_error(rebuilt, clean, "rmse").item() == pytest.approx(math.sqrt(mse), rel=1e-5)
    assert pixel_error(1 - clean.round(), clean.round(), "rmse").item() == pytest.approx(2)


def test_the_root_has_a_slope_where_nothing_is_wrong():
    clean = torch.rand(2, 1, 3, 3)
    rebuilt = clean.clone().requires_grad_(True)
    pixel_error(rebuilt, clean, "rmse").backward()
    assert rebuilt.grad.abs().max() == 0


def test_answers_of_the_discriminator_by_hand():
    real, rebuilt = torch.tensor([[math.log(3)], [0.0]]), torch.tensor([[-math.log(4)], [math.log(1.5)]])
    # probabilities of being clean: 3/4 and 1/2; 1/5 and 3/5
    found = discriminator_loss(real, rebuilt).item()
    assert found == pytest.approx(-(math.log(3 / 4) + math.log(1 / 2) + math.log(4 / 5) + math.log(2 / 5)) / 2)
    assert adversarial_loss(rebuilt).item() == pytest.approx(-(math.log(1 / 5) + math.log(3 / 5)) / 2)
    assert math.isfinite(discriminator_loss(torch.tensor([[-200.0]]), torch.tensor([[200.0]])).item())


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (3, 17, 23)], ids=str)
def test_networks_take_any_image(shape):
    torch.manual_seed(0)
    x = torch.rand(2, *shape)
    rebuilt = Generator(shape, 4)(x)
    assert rebuilt.shape == x.shape
    assert 0 <= rebuilt.min() < rebuilt.max() <= 1
    assert Discriminator(shape, 4)(x).shape == (2, 1)


def test_networks_have_the_released_layers():
    seen = []
    generator, discriminator = Generator((1, 28, 28)), Discriminator((1, 28, 28))
    for module in (*generator.modules(), *discriminator.modules()):
        if isinstance(module, torch.nn.Conv2d | torch.nn.ConvTranspose2d):
            module.register_forward_hook(lambda _, __, out: seen.append(tuple(out.shape[1:])))
    discriminator(generator(torch.rand(2, 1, 28, 28)))
    assert seen == [(64, 14, 14), (128, 7, 7), (64, 14, 14), (1, 28, 28), (64, 14, 14), (128, 7, 7), (256, 4, 4)]


def test_the_discriminator_has_its_turn_and_the_generator_two(make_purifier, batch, monkeypatch):
    defense = make_purifier("ape_gan")
    for step in range(7):
        monkeypatch.setattr(type(defense), "global_step", step)
        defense.enter(defense.stages()[-1])
        terms = defense.losses(batch)
        sum(terms.values()).backward()
        defense.on_before_optimizer_step(None)
        moved = {name.split(".")[0] for name, p in defense.named_parameters() if p.grad is not None}
        assert moved == ({"discriminator"} if step % 3 == 0 else {"generator"})
        assert set(terms) == ({"discriminator"} if step % 3 == 0 else {"pixels", "adversarial"})
        defense.zero_grad()


def test_the_generators_loss_is_weighed(make_purifier, batch, monkeypatch):
    defense = make_purifier("ape_gan", pixel_loss="mse", pixel_weight=0.7, adversarial_weight=0.3)
    monkeypatch.setattr(type(defense), "global_step", 1)
    terms = defense.losses(batch)
    rebuilt = defense.generator(batch.x_adv)
    mse = 4 * (rebuilt - batch.x).double().square().mean()
    belief = defense.discriminator(rebuilt).double().sigmoid()
    assert terms["pixels"].item() == pytest.approx(0.7 * mse.item(), rel=1e-5)
    assert terms["adversarial"].item() == pytest.approx(-0.3 * belief.log().mean().item(), rel=1e-5)
    clean = make_purifier("ape_gan", mix_clean=1.0)
    torch.testing.assert_close(
        clean.losses(batch)["pixels"], 0.9 * pixel_error(clean.generator(batch.x), batch.x, "rmse")
    )


def test_a_few_steps_bring_rebuilt_images_nearer(make_purifier, batch, monkeypatch):
    defense = make_purifier("ape_gan")
    defense.enter(defense.stages()[-1])
    optimizer = torch.optim.Adam(defense.generator.parameters(), 0.01)
    monkeypatch.setattr(type(defense), "global_step", 1)
    seen = []
    for _ in range(20):
        terms = defense.losses(batch)
        optimizer.zero_grad()
        sum(terms.values()).backward()
        optimizer.step()
        seen.append(terms["pixels"].item())
    assert seen[-1] < 0.8 * seen[0]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"generator_steps": 0}, "at least 1 step"),
        ({"pixel_weight": -1}, "weights of 0 or more"),
        ({"mix_clean": 2}, "share between 0 and 1"),
        ({"pixel_loss": "mae"}, "rmse, mse"),
    ],
)
def test_impossible_values(make_purifier, settings, words):
    with pytest.raises(UserError, match=words):
        make_purifier("ape_gan", **settings)


@pytest.mark.parametrize("network", [Generator, Discriminator])
def test_networks_have_channels(network):
    with pytest.raises(UserError, match="1 or more"):
        network((1, 28, 28), 0)
