"""Losses of the purifiers against hand-computed values."""

import math

import numpy as np
import pytest
import torch

from robustforge.losses.purification import (
    bernoulli_error,
    critic_loss,
    gaussian_kl,
    gradient_penalty,
    jensen_shannon,
)  # fmt: skip


def test_bernoulli_error_by_hand():
    logits = torch.tensor([[0.0, math.log(3)], [2.0, -1.0]]).view(2, 1, 1, 2)
    x = torch.tensor([[1.0, 1.0], [0.25, 0.0]]).view(2, 1, 1, 2)
    p = 1 / (1 + math.exp(-2))
    second = -0.25 * math.log(p) - 0.75 * math.log(1 - p) + math.log(1 + math.exp(-1))
    assert bernoulli_error(logits, x).tolist() == pytest.approx([math.log(2) + math.log(4 / 3), second], rel=1e-6)


def test_gaussian_kl_by_hand():
    mean, std = torch.tensor([[0.0, 0.0], [1.0, -2.0]]), torch.tensor([[1.0, 1.0], [2.0, 0.5]])
    expected = 0.5 * (1 + 4 - 1 - 2 * math.log(2)) + 0.5 * (4 + 0.25 - 1 - 2 * math.log(0.5))
    assert gaussian_kl(mean, std).tolist() == pytest.approx([0.0, expected], rel=1e-6)
    oracle = torch.distributions.kl_divergence(torch.distributions.Normal(mean, std), torch.distributions.Normal(0, 1))
    torch.testing.assert_close(gaussian_kl(mean, std), oracle.sum(1))


@pytest.mark.parametrize("temperature", [1.0, 10.0])
def test_jensen_shannon(temperature):
    one, two = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[3.0, -1.0, 0.0]])
    p, q = (np.exp(v.numpy()[0] / temperature) for v in (one, two))
    p, q = p / p.sum(), q / q.sum()
    m = (p + q) / 2
    expected = 0.5 * (p * np.log(p / m)).sum() + 0.5 * (q * np.log(q / m)).sum()
    assert jensen_shannon(one, two, temperature).item() == pytest.approx(expected, rel=1e-4)
    assert jensen_shannon(two, one, temperature).item() == pytest.approx(expected, rel=1e-4)
    assert jensen_shannon(one, one + 5, temperature).item() == pytest.approx(0, abs=1e-6)


def test_jensen_shannon_is_at_most_log_2():
    far = jensen_shannon(torch.tensor([[500.0, 0.0]]), torch.tensor([[0.0, 500.0]]))
    assert far.item() == pytest.approx(math.log(2), rel=1e-5)


def test_critic_loss():
    assert critic_loss(torch.tensor([[1.0], [3.0]]), torch.tensor([[5.0], [0.0]])).item() == pytest.approx(0.5)


def test_gradient_penalty_by_hand():
    """A linear critic has the same gradient everywhere: (|w| - 1)^2."""
    weight = torch.tensor([3.0, 4.0], requires_grad=True)
    real, fake, share = torch.rand(4, 1, 1, 2), torch.rand(4, 1, 1, 2), torch.rand(4, 1, 1, 1)
    penalty = gradient_penalty(lambda x: x.flatten(1) @ weight[:, None], real, fake, share)
    assert penalty.item() == pytest.approx(16, rel=1e-5)
    penalty.backward()  # 2 (|w| - 1) w / |w|
    assert weight.grad.tolist() == pytest.approx([8 * 0.6, 8 * 0.8], rel=1e-5)


def test_gradient_penalty_is_taken_between_the_images():
    seen = []

    def critic(x):
        seen.append(x.detach())
        return x.square().flatten(1).sum(1, keepdim=True)

    real, fake = torch.ones(1, 1, 1, 1), torch.zeros(1, 1, 1, 1)
    penalty = gradient_penalty(critic, real, fake, torch.full((1, 1, 1, 1), 0.25))
    assert seen[0].item() == 0.25
    assert penalty.item() == pytest.approx((2 * 0.25 - 1) ** 2)
