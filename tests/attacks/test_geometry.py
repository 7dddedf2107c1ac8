"""The ball: projections, steps, starts and membership against hand values."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robustforge.attacks.core.geometry import ascent_direction, inside, l2_norm, linf_norm, project, random_start
from robustforge.randomness import SampleRandom
from robustforge.types import Threat, UserError


def image(*values):
    return torch.tensor([[list(map(float, values))]])[:, :, None]


def test_norms():
    x = torch.cat([image(3, -4), image(0, 0)])
    assert l2_norm(x).tolist() == [5, 0]
    assert linf_norm(x).tolist() == [4, 0]


def test_project_linf_by_hand():
    x = image(0.5, 0.5, 0.05, 0.95, 0.5)
    moved = image(0.9, 0.45, -0.3, 1.3, 0.1)
    torch.testing.assert_close(project(moved, x, Threat("linf", 0.1)), image(0.6, 0.45, 0.0, 1.0, 0.4))


def test_project_l2_by_hand():
    x = torch.cat([image(0.5, 0.5), image(0.5, 0.5), image(0.0, 1.0)])
    moved = torch.cat([image(0.8, 0.9), image(0.53, 0.54), image(-0.3, 1.4)])
    expected = torch.cat([image(0.56, 0.58), image(0.53, 0.54), image(0.0, 1.0)])
    torch.testing.assert_close(project(moved, x, Threat("l2", 0.1)), expected)


def test_ascent_direction_by_hand():
    gradient = torch.cat([image(3, -4, 0), image(0, 0, 0)])
    assert ascent_direction(gradient, Threat("linf", 0.1)).tolist() == [[[[1, -1, 0]]], [[[0, 0, 0]]]]
    torch.testing.assert_close(ascent_direction(gradient, Threat("l2", 0.1)), gradient / 5)


@pytest.mark.parametrize("scale", [1e30, 1e-10, 1e-14, 1e-25, 1e-37])
def test_l2_direction_has_length_one_however_small_the_gradient(scale):
    # a confident network's cross-entropy has gradients like these; a shorter step would look like robustness
    direction = ascent_direction(scale * image(3, -4), Threat("l2", 0.1))
    torch.testing.assert_close(direction, image(0.6, -0.8))


def test_inside_by_hand():
    x = image(0.5, 0.9)
    for values, linf, l2 in (
        ((0.6, 0.9), True, True), ((0.6, 1.0), True, False), ((0.61, 0.9), False, False), ((0.5, 0.9), True, True),
        ((float("nan"), 0.9), False, False),
    ):  # fmt: skip
        assert inside(image(*values), x, Threat("linf", 0.1)).item() is linf
        assert inside(image(*values), x, Threat("l2", 0.1)).item() is l2
    assert not inside(image(0.5, 1.0 + 1e-6), image(0.5, 1.0), Threat("linf", 0.1)).item()  # no slack on [0, 1]


@settings(max_examples=60, deadline=None)
@given(
    norm=st.sampled_from(["linf", "l2"]), eps=st.floats(0, 1), seed=st.integers(0, 2**31 - 1), spread=st.floats(0, 3)
)
def test_projection_lands_inside_and_leaves_what_is_inside(norm, eps, seed, spread):
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(4, 3, 5, 6, generator=generator).mul(1.4).sub(0.2).clamp(0, 1)
    moved = x + spread * torch.randn(x.shape, generator=generator)
    threat = Threat(norm, eps)
    landed = project(moved, x, threat)
    assert inside(landed, x, threat).all()
    torch.testing.assert_close(project(landed, x, threat), landed, atol=1e-6, rtol=0)


def test_projection_is_the_nearest_point_of_the_ball():
    generator = torch.Generator().manual_seed(0)
    x = torch.full((1, 1, 2, 2), 0.5)
    moved = x + torch.randn(x.shape, generator=generator)
    for threat in (Threat("linf", 0.2), Threat("l2", 0.2)):
        distance = l2_norm(project(moved, x, threat) - moved)
        others = project(x + 0.5 * torch.randn(5000, 1, 2, 2, generator=generator), x, threat)
        assert (l2_norm(others - moved) >= distance - 1e-6).all()


@pytest.mark.parametrize("eps", [0.5, 5.0, 30.0])
def test_large_l2_budgets_of_large_images_survive_float32_rounding(eps):
    x = torch.full((1, 3, 224, 224), 0.5)
    threat = Threat("l2", eps)
    moved = x + torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    assert inside(project(moved, x, threat), x, threat).all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_random_start_fills_the_ball_and_no_more(norm):
    x, threat = torch.full((20_000, 1, 2, 2), 0.5), Threat(norm, 0.25)
    start = random_start(x, torch.arange(len(x)), threat, SampleRandom(0, "pgd"))
    noise = (start - x) / threat.eps
    assert inside(start, x, threat).all()
    assert noise.mean((0, 1)).abs().max() < 0.02
    if norm == "linf":
        assert noise.abs().max() > 0.999
        uniform = (noise.flatten() + 1) / 2
    else:
        uniform = l2_norm(noise) ** 4  # the share of the 4-ball within a radius r is r**4
        signs = (noise.flatten(1) > 0).long() @ torch.tensor([1, 2, 4, 8])
        assert (signs.bincount(minlength=16) / len(x) - 1 / 16).abs().max() < 0.008
    values, count = uniform.double().sort().values, uniform.numel()
    assert (values - torch.arange(1, count + 1) / count).abs().max() < 1.95 / count**0.5


def test_random_start_stays_in_the_unit_cube():
    x = torch.rand(50, 1, 4, 4, generator=torch.Generator().manual_seed(0)).round()
    for threat in (Threat("linf", 0.3), Threat("l2", 2.0)):
        start = random_start(x, torch.arange(50), threat, SampleRandom(0, "pgd"))
        assert inside(start, x, threat).all()
        assert (start == x).float().mean() > 0.2  # noise that points out of the cube is cut off


@pytest.mark.parametrize(
    ("norm", "eps"), [("linf", -0.1), ("l1", -1), ("linf", 1.01), ("l2", float("inf")), ("l2", float("nan"))]
)
def test_impossible_budgets(norm, eps):
    with pytest.raises(UserError, match="radius"):
        Threat(norm, eps)


def test_unknown_norm():
    with pytest.raises(UserError, match="one of linf, l2, l1, l0, l0_pixels"):
        Threat("l3", 0.1)


@pytest.mark.parametrize("norm", ["l0", "l0_pixels"])
def test_a_count_is_a_whole_number(norm):
    assert Threat(norm, 24.0).eps == 24
    with pytest.raises(UserError, match="whole number"):
        Threat(norm, 2.5)
