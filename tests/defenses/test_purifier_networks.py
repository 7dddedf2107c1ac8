"""Denoiser, VAEs, GAN and MagNet's auto-encoders: shapes for any image, noise only where it is handed in."""

import pytest
import torch

from robustforge.defenses.cae.networks import SKIPS, Denoiser
from robustforge.defenses.defense_gan.networks import Critic, Generator
from robustforge.defenses.defense_vae.networks import DefenseVAENetwork
from robustforge.defenses.magnet.networks import SigmoidAutoencoder
from robustforge.defenses.puvae.networks import ConditionalVAE
from robustforge.nn.padding import crop_to, pad_to_multiple
from robustforge.nn.running_moments import RunningMoments
from robustforge.types import UserError

SHAPES = [(1, 28, 28), (3, 32, 32), (3, 17, 23), (1, 8, 8), (3, 50, 64)]


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def images(shape, count=2):
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(1))


def in_range(x):
    return bool((x >= 0).all() and (x <= 1).all())


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_padding_is_undone_by_cropping(shape):
    x = images(shape)
    padded = pad_to_multiple(x, 8)
    assert padded.shape[-2] % 8 == padded.shape[-1] % 8 == 0
    assert padded.sum() == pytest.approx(x.sum().item())
    assert torch.equal(crop_to(padded, *shape[1:]), x)


@pytest.mark.parametrize("skips", SKIPS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_denoiser_returns_the_images_shape(shape, skips):
    denoiser, x = Denoiser(shape, (4, 8, 16), 5, skips), images(shape)
    rebuilt = denoiser(x, torch.randn(2, *denoiser.latent_shape))
    assert rebuilt.shape == x.shape
    assert in_range(rebuilt)
    assert denoiser.latent_shape[0] == 5


def test_denoisers_layer_table():
    """The recommended stack: 28 x 28 to 64 x 7 x 7 and back."""
    denoiser, seen = Denoiser((1, 28, 28)), []
    for module in denoiser.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.ConvTranspose2d):
            module.register_forward_hook(lambda _, __, out: seen.append(tuple(out.shape[1:])))
    denoiser(images((1, 28, 28)))
    assert seen == [
        (32, 28, 28),
        (64, 14, 14),
        (128, 7, 7),
        (64, 7, 7),
        (128, 7, 7),
        (64, 14, 14),
        (32, 28, 28),
        (1, 28, 28),
    ]
    assert denoiser.latent_shape == (64, 7, 7)
    assert sum(isinstance(m, torch.nn.GELU) for m in denoiser.modules()) == 6
    assert not any(isinstance(m, torch.nn.GELU) for m in Denoiser((1, 28, 28), activation="relu").modules())


@pytest.mark.parametrize("skips", SKIPS)
def test_only_skips_pass_the_bottleneck_by(skips):
    denoiser = Denoiser((1, 16, 16), (4, 8), 2, skips).eval()
    with torch.no_grad():
        denoiser.to_latent.weight.zero_()
        denoiser.to_latent.bias.zero_()
        one, two = denoiser(images((1, 16, 16)))
    assert torch.equal(one, two) == (skips == "none")


def test_noise_is_scaled_and_only_there_when_handed_in():
    denoiser, x = Denoiser((1, 28, 28), (4, 8), 4, noise=0.3), images((1, 28, 28), 16)
    latents = []
    denoiser.from_latent.register_forward_pre_hook(lambda _, args: latents.append(args[0].detach()))
    draw = torch.randn(16, *denoiser.latent_shape)
    first = denoiser.train()(x)
    assert torch.equal(first, denoiser(x)), "no noise of its own, in training mode either"
    denoiser.eval()
    sigma = denoiser.sigma()
    clean, noisy = denoiser(x), denoiser(x, draw)
    assert not torch.equal(clean, noisy)
    torch.testing.assert_close(latents[-1] - latents[-2], sigma * draw, rtol=1e-3, atol=1e-5)
    # both training batches were the same, so that the running deviation is the batch's own
    assert float(sigma) == pytest.approx(0.3 * latents[0].std().item(), rel=1e-3)
    absolute = Denoiser((1, 28, 28), (4, 8), 4, noise=0.3, noise_scale="absolute").train()
    absolute(x)
    assert float(absolute.sigma()) == pytest.approx(0.3)


def test_running_moments():
    moments, values = RunningMoments(2, momentum=0.25), torch.tensor([[0.0, 1.0], [2.0, 5.0]])
    moments.eval().update(values)
    assert moments.mean.tolist() == [0, 0]
    moments.train().update(values)  # the first batch counts whole
    assert moments.mean.tolist() == [1, 3]
    assert moments.variance.tolist() == [2, 8]
    moments.update(values + 4)
    assert moments.mean.tolist() == [2, 4]
    torch.testing.assert_close(moments(torch.tensor([[2.0, 4.0 + 8**0.5]])), torch.tensor([[0.0, 1.0]]))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"skips": "dense"}, "none, add, concat"),
        ({"noise": -0.1}, "0 or more"),
        ({"noise_scale": "log"}, "relative, absolute"),
        ({"widths": ()}, "1 or more"),
        ({"activation": "tanh"}, "gelu, relu"),
    ],
)
def test_denoiser_refuses(settings, words):
    with pytest.raises(UserError, match=words):
        Denoiser((1, 28, 28), **settings)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_vaes_and_gan_return_the_images_shape(shape):
    x = images(shape)
    vae, labels = ConditionalVAE(shape, 7, 5, 4, 16), torch.arange(7).expand(2, -1)
    mean, std = vae.encode(x, labels)
    assert mean.shape == std.shape == (2, 7, 5)
    assert (std > 0).all()
    assert vae.decode(mean, labels).shape == (2, 7, *shape)
    rebuilt = DefenseVAENetwork(shape, 8, 4)(x)
    assert rebuilt.shape == x.shape
    assert in_range(rebuilt)
    generated = Generator(shape, 6, 4)(torch.randn(2, 6))
    assert generated.shape == x.shape
    assert in_range(generated)
    assert Critic(shape, 4)(x).shape == (2, 1)
    for pooled in (True, False):
        rebuilt = SigmoidAutoencoder(shape, pooled)(x)
        assert rebuilt.shape == x.shape
        assert in_range(rebuilt)


def test_labels_share_the_convolutions_and_are_told_apart():
    vae, x = ConditionalVAE((1, 28, 28), 10, 4, 4, 16).eval(), images((1, 28, 28), 3)
    passes = []
    vae.features[0].register_forward_hook(lambda _, __, out: passes.append(len(out)))
    every = vae.encode(x, torch.arange(10).expand(3, -1))[0]
    assert passes == [3]
    for label in (0, 9):
        torch.testing.assert_close(vae.encode(x, torch.full((3, 1), label))[0][:, 0], every[:, label])
    assert not torch.allclose(every[:, 0], every[:, 9])


def test_defense_vae_has_the_released_layers():
    vae, seen = DefenseVAENetwork((1, 28, 28)), []
    for module in vae.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(lambda _, __, out: seen.append(tuple(out.shape[1:])))
    vae(images((1, 28, 28)))
    assert seen == [(64, 28, 28), (64, 16, 16), (128, 8, 8), (256, 4, 4), (1, 28, 28)]
    assert not any(name.endswith("bias") for name, _ in vae.named_parameters() if "1.bias" not in name)


def test_generator_has_the_released_sizes():
    generator, seen = Generator((1, 28, 28)), []
    for layer in generator.layers:
        layer.register_forward_hook(lambda _, args, __: seen.append(tuple(args[0].shape[1:])))
    assert generator(torch.randn(1, 128)).shape == (1, 1, 28, 28)
    assert seen == [(256, 4, 4), (128, 7, 7), (64, 14, 14)]


def test_a_fresh_narrow_denoiser_is_dark_gray_and_no_constant():
    """With PyTorch's initialization its outputs differ by a few millionths, and training can end in a black image."""
    torch.manual_seed(0)
    images = torch.rand(32, 1, 16, 16)
    rebuilt = Denoiser((1, 16, 16), (8, 16, 32), 16)(images)
    assert 0.05 < rebuilt.mean() < 0.25
    assert rebuilt.std(0).mean() > 0.001
