"""The Gaussian-mixture VAE's losses against numbers worked out by hand and torch.distributions."""

import math

import pytest
import torch
from torch.distributions import Independent, Normal, kl_divergence

from robustforge.attacks.core.surface import end_to_end
from robustforge.attacks.fgsm import FGSM
from robustforge.defenses.gmvae.losses import (
    annealed_variance,
    constant_entropy_terms,
    mixture_energy,
    variable_entropy_latent,
    with_attacked,
)  # fmt: skip
from robustforge.defenses.gmvae.mixture import MixtureDetector, class_means
from robustforge.defenses.gmvae.selective import SelectiveClassifier
from robustforge.defenses.gmvae.settings import AdversarialSettings
from robustforge.types import Batch, DefenseOutput, Threat


def test_equation_7_by_hand():
    x = torch.tensor([[[[0.0, 1.0]]], [[[0.5, 0.5]]]])
    rebuilt = torch.tensor([[[[0.5, 1.0]]], [[[0.5, 0.0]]]])  # squared errors .25 and .25
    latent = torch.tensor([[1.0, 0.5], [0.0, 0.0]])  # class 0: .25 away; class 1: 1 away
    terms = constant_entropy_terms(x, rebuilt, latent, torch.eye(2), alpha=10.0)
    assert terms["reconstruction"].item() == pytest.approx(0.25)
    assert terms["latent"].item() == pytest.approx(10 * (0.25 + 1.0) / 2)
    assert set(terms) == {"reconstruction", "latent"}


def test_mixture_energy_by_hand():
    means = torch.eye(2)
    z = torch.tensor([[1.0, 0.0], [0.5, 0.5]])
    v = 0.5
    expected = [-2 * v * math.log(1 + math.exp(-2 / (2 * v))), 0.5 - 2 * v * math.log(2)]
    torch.testing.assert_close(mixture_energy(z, means, v), torch.tensor(expected))


@pytest.mark.parametrize("v", [1.0, 1e-2, 1e-4])
def test_mixture_energy_lies_under_the_nearest_distance_and_tends_to_it(v):
    means, z = class_means(5, 7), torch.randn(20, 7, generator=torch.Generator().manual_seed(0))
    nearest = torch.cdist(z, means).square().amin(1)
    energy = mixture_energy(z, means, v)
    assert (energy <= nearest + 1e-5).all()
    assert (energy >= nearest - 2 * v * math.log(5) - 1e-5).all()


def test_mixture_energy_is_the_mixtures_density():
    """-2 v log p(z), up to the normalizer, by an independent implementation."""
    means, v = class_means(3, 4), 0.2
    z = torch.randn(6, 4, generator=torch.Generator().manual_seed(1))
    components = Independent(Normal(means, math.sqrt(v)), 1)
    log_density = torch.stack([components.log_prob(one) for one in z]).logsumexp(1)
    normalizer = -0.5 * 4 * math.log(2 * math.pi * v)
    torch.testing.assert_close(mixture_energy(z, means, v), -2 * v * (log_density - normalizer))


def test_annealing():
    assert annealed_variance(0.01, 0.0, 100, 0.5) == pytest.approx(1.0)
    assert annealed_variance(0.01, 0.25, 100, 0.5) == pytest.approx(0.1)
    assert annealed_variance(0.01, 0.5, 100, 0.5) == annealed_variance(0.01, 1.0, 100, 0.5) == 0.01
    assert annealed_variance(0.01, 0.0, 100, 0.0) == 0.01


def test_variable_entropy_is_the_kl_divergence():
    generator = torch.Generator().manual_seed(0)
    mean, means = torch.randn(5, 3, generator=generator), torch.randn(5, 3, generator=generator)
    log_variance = torch.randn(5, 3, generator=generator)
    v = 0.3
    exact = kl_divergence(
        Independent(Normal(mean, (0.5 * log_variance).exp()), 1), Independent(Normal(means, math.sqrt(v)), 1)
    )
    torch.testing.assert_close(variable_entropy_latent(mean, log_variance, means, v), 2 * v * exact)
    constant = torch.full_like(mean, math.log(v))
    squares = (mean - means).square().sum(1)
    torch.testing.assert_close(variable_entropy_latent(mean, constant, means, v), squares, atol=1e-5, rtol=1e-5)


def test_the_latent_term_is_shared_between_clean_and_attacked_images():
    torch.manual_seed(0)
    encoder = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2))
    classifier = SelectiveClassifier(encoder, torch.nn.Identity(), MixtureDetector(2, 2, 0.01, 4), 2)
    surface = end_to_end(lambda x: DefenseOutput(classifier.scores(classifier.encode(x))), encoder)
    batch = Batch(torch.rand(6, 1, 2, 2), torch.arange(6) % 2, torch.arange(6))
    settings = AdversarialSettings(FGSM(early_stop=False), Threat("linf", 0.2), 0.25)
    terms = with_attacked(
        {"reconstruction": torch.tensor(3.0), "latent": torch.tensor(8.0)},
        classifier,
        settings,
        surface,
        batch,
        10.0,
        0,
    )
    x_adv = settings.attack(surface, batch.x, batch.y, settings.threat).x_adv
    distance = (encoder(x_adv) - torch.eye(2)[batch.y]).square().sum(1).mean().item()
    assert distance > (encoder(batch.x) - torch.eye(2)[batch.y]).square().sum(1).mean().item()
    assert (terms["reconstruction"].item(), terms["latent"].item()) == (3.0, 6.0)
    assert terms["attacked"].item() == pytest.approx(0.25 * 10 * distance, rel=1e-5)
    terms["attacked"].backward()
    assert encoder[1].weight.grad.abs().sum() > 0
