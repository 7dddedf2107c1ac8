"""PuVAE keeps what it needs of an image: trained for a few seconds on scikit-learn's digits."""

from functools import partial

import pytest
import torch

from robustforge.data.sources import digits as load_digits
from robustforge.defenses.puvae import PuVAE
from robustforge.defenses.puvae.networks import ConditionalVAE
from robustforge.losses.purification import gaussian_kl
from robustforge.types import Batch


class Answering(torch.nn.Module):
    """A classifier by the nearest class mean of the training images: no training of its own."""

    def __init__(self, means):
        super().__init__()
        self.register_buffer("means", means.flatten(1))

    def forward(self, x):
        return -torch.cdist(x.flatten(1), self.means)


@pytest.fixture(scope="module")
def digits():
    data = load_digits((1, 14, 14))
    x, y = torch.from_numpy(data["x_train"]).float() / 255, torch.from_numpy(data["y_train"])
    return x, y


@pytest.fixture(scope="module")
def trained(digits):
    x, y = digits[0][:1200], digits[1][:1200]
    means = torch.stack([x[y == number].mean(0) for number in range(10)])
    training = None  # the loop is the test's own
    vae = partial(ConditionalVAE, (1, 14, 14), 10, latent=32, width=8, hidden=64)
    defense = PuVAE(lambda: Answering(means), vae, training, training)
    torch.manual_seed(0)
    optimizer = torch.optim.Adam(defense.vae.parameters(), 3e-3)
    for _ in range(12):
        for rows in torch.randperm(1200).split(30):
            optimizer.zero_grad()
            terms = defense.losses(Batch(x[rows], y[rows], rows))
            torch.stack(list(terms.values())).sum().backward()
            optimizer.step()
    return defense.eval(), means


def test_the_latent_does_not_collapse_and_images_beat_the_mean_of_their_class(trained, digits):
    defense, means = trained
    x, y = digits[0][1200:], digits[1][1200:]
    with torch.no_grad():
        mean, std = (part[:, 0] for part in defense.vae.encode(x, y[:, None]))
        rebuilt = defense.vae.decode(mean[:, None], y[:, None])[:, 0].sigmoid()
        nats = gaussian_kl(mean, std).mean().item()
        right = (defense(x).logits.argmax(1) == y).float().mean().item()
    error, of_means = (rebuilt - x).square().mean().item(), (means[y] - x).square().mean().item()
    assert nats > 4, "summed over the latent, the divergence leaves about none"
    assert error < 0.75 * of_means
    assert right > 0.8
