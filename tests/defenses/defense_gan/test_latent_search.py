"""Defense-GAN's search: batched restarts are single runs, images do not see each other, and the last step's derivative."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from robustforge.defenses.defense_gan.latent_search import LatentSearch, one_more_step, search, squared_error
from robustforge.types import UserError

PLAN = LatentSearch(restarts=3, steps=25, lr=1.0)


@pytest.fixture
def generator():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 36), nn.Tanh(), nn.Unflatten(1, (1, 6, 6))).requires_grad_(False)


@pytest.fixture
def problem(generator):
    """(images (5, 1, 6, 6), first latents (5, 3, 4)); the images are generated, so that the search can succeed."""
    torch.manual_seed(1)
    return generator(torch.randn(5, 4)), torch.randn(5, 3, 4)


def by_hand(generator, x, z, plan):
    """One image, one restart, momentum as in TensorFlow's optimizer; (latent, step at which it was reached)."""
    velocity = torch.zeros_like(z)
    for step in range(plan.steps):
        leaf = z.clone().requires_grad_(True)
        error = (generator(leaf[None])[0] - x).square().mean()
        if plan.tolerance and error.item() <= plan.tolerance:
            return z, step
        (gradient,) = torch.autograd.grad(error, leaf)
        velocity = plan.momentum * velocity + gradient
        z = z - (plan.lr if step < plan.decay_at * plan.steps else plan.lr / 10) * velocity
    return z, plan.steps


def test_batched_restarts_equal_single_runs(generator, problem):
    x, start = problem
    found = search(generator, x, start, PLAN)
    for image in range(5):
        ends = [by_hand(generator, x[image], start[image, r], PLAN)[0] for r in range(3)]
        errors = [float(squared_error(generator(z[None]), x[image : image + 1])) for z in ends]
        best = ends[errors.index(min(errors))]
        torch.testing.assert_close(found[image], best, rtol=1e-4, atol=1e-5)
    assert not found.requires_grad


@pytest.mark.parametrize("tolerance", [0.0, 0.02])
def test_an_image_does_not_see_the_others(generator, problem, tolerance):
    x, start = problem
    plan = replace(PLAN, tolerance=tolerance)
    together = search(generator, x, start, plan)
    alone = torch.cat([search(generator, x[i : i + 1], start[i : i + 1], plan) for i in range(5)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    few_rows = search(generator, x, start, replace(plan, rows=4))
    torch.testing.assert_close(together, few_rows, rtol=1e-4, atol=1e-5)


def test_only_survivors_stay_in_the_batch(generator, problem):
    x, start = problem
    plan = replace(PLAN, tolerance=0.02, steps=60)
    sizes = []
    handle = generator.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    found = search(generator, x, start, plan)
    handle.remove()
    assert sizes[0] == 15
    assert sizes == sorted(sizes, reverse=True)
    assert all(size % 3 == 0 for size in sizes)
    # each image left with its first restart that was there; others ran on to the end
    reached = [[by_hand(generator, x[i], start[i, r], plan)[1] for r in range(3)] for i in range(5)]
    gone = sum(min(steps) < plan.steps for steps in reached)
    assert gone >= 1, "the case must be one in which somebody leaves"
    assert sizes[-1] == 3 * (5 - gone) or gone == 5
    error = squared_error(generator(found), x)
    assert all(float(error[i]) <= 0.02 for i in range(5) if min(reached[i]) < plan.steps)


def test_search_works_without_gradients_and_in_inference_mode(generator, problem):
    x, start = problem
    expected = search(generator, x, start, PLAN)
    for mode in (torch.no_grad(), torch.inference_mode()):
        with mode:
            assert torch.equal(search(generator, x, start, PLAN), expected)
    leaf = x.clone().requires_grad_(True)
    assert torch.equal(search(generator, leaf, start, PLAN), expected)


def test_last_steps_derivative(generator):
    """2 rate J J^T / n for a linear generator, where no second derivative adds to it."""
    linear = nn.Sequential(nn.Linear(4, 36, bias=False), nn.Unflatten(1, (1, 6, 6))).requires_grad_(False)
    jacobian, x = linear[0].weight, torch.rand(2, 1, 6, 6).requires_grad_(True)
    direction = torch.randn(2, 1, 6, 6)
    out = one_more_step(linear, x, torch.zeros(2, 4), 0.5)
    (gradient,) = torch.autograd.grad((out * direction).sum(), x)
    expected = 2 * 0.5 / 36 * direction.flatten(1) @ jacobian @ jacobian.T
    torch.testing.assert_close(gradient.flatten(1), expected, rtol=1e-4, atol=1e-6)


def test_impossible_searches():
    with pytest.raises(UserError, match="restarts is 0: give a whole number of at least 1"):
        LatentSearch(restarts=0)
    with pytest.raises(UserError, match="lr is 0: give a number above 0"):
        LatentSearch(lr=0)
