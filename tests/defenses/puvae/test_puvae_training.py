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
    # the balance of error and divergence alone: hundreds of steps are too few for the classifier's large weight
    defense = PuVAE(lambda: Answering(means), vae, training, training, weights=(0.01, 0.1, 0.0))
    torch.manual_seed(0)
    optimizer = torch.optim.Adam(defense.vae.parameters(), 3e-3)
    for _ in range(12):
        for rows in torch.randperm(1200).split(30):
            optimizer.zero_grad()
            terms = defense.losses(Batch(x[rows], y[rows], rows))
            torch.stack(list(terms.values())).sum().backward()
            optimizer.step()
    return defense.eval(), means


@pytest.mark.slow  # some 10 s of training
def test_the_latent_does_not_collapse_and_images_beat_the_mean_of_their_class(trained, digits):
    defense, means = trained
    x, y = digits[0][1200:], digits[1][1200:]
    with torch.no_grad():
        mean, std = (part[:, 0] for part in defense.vae.encode(x, y[:, None]))
        rebuilt = defense.vae.decode(mean[:, None], y[:, None])[:, 0].sigmoid()
        nats = gaussian_kl(mean, std).mean().item()
        right = (defense(x).logits.argmax(1) == y).float().mean().item()
    assert nats > 1, "with the divergence summed over the latent it is 0.03 to 0.05"
    assert (rebuilt - x).square().mean() < (means[y] - x).square().mean()
    assert right > 0.8
