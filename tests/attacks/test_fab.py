"""FAB-T: its projection against independent solvers, minimum norms by hand, strength."""

import numpy as np
import pytest
import torch
from attack_cases import linear
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from robustforge.attacks.fab import FAB, to_hyperplane
from robustforge.attacks.pgd import PGD
from robustforge.types import Threat, UserError


def smallest_linf(x, w, rise):
    """min t such that |d| <= t, 0 <= x + d <= 1, w d = rise, by linear programming; None if there is no such d."""
    d = len(x)
    over = np.block([[np.eye(d), -np.ones((d, 1))], [-np.eye(d), -np.ones((d, 1))]])
    bounds = [*((-a, 1 - a) for a in x), (0, None)]
    found = linprog([*[0.0] * d, 1.0], over, np.zeros(2 * d), [[*w, 0.0]], [rise], bounds)
    return found.fun if found.status == 0 else None


def smallest_l2(x, w, rise):
    """The multiplier of the hyperplane by bisection: d = clip(multiplier * w)."""

    def step(multiplier):
        return np.clip(multiplier * w, -x, 1 - x)

    low, high = (0.0, 1e6) if rise > 0 else (-1e6, 0.0)
    if abs(rise) > abs(w @ step(high if rise > 0 else low)):
        return None
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if w @ step(middle) < rise else (low, middle)
    return float(np.linalg.norm(step(low)))


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), size=st.integers(1, 12), norm=st.sampled_from(["linf", "l2"]), sparse=st.booleans())
def test_the_step_to_the_hyperplane_is_the_smallest(seed, size, norm, sparse):
    draw = np.random.default_rng(seed)
    x = draw.uniform(-0.3, 1.3, (4, size)).clip(0, 1)
    w = draw.normal(size=(4, size)) * (draw.uniform(size=(4, size)) < 0.5 if sparse else 1)
    rise = draw.normal(size=4) * draw.choice([0.01, 0.5, 3.0])
    solve = smallest_linf if norm == "linf" else smallest_l2
    ours = to_hyperplane(*(torch.tensor(a, dtype=torch.float32) for a in (x, w, rise)), norm).double().numpy()
    for k in range(4):
        assert (x[k] + ours[k]).min() > -1e-6
        assert (x[k] + ours[k]).max() < 1 + 1e-6
        reach = np.where(w[k] * np.sign(rise[k]) > 0, 1 - x[k], x[k]) @ np.abs(w[k])
        if reach < abs(rise[k]) * (1 + 1e-4):  # out of reach, or all but: the nearest corner
            assert abs(w[k] @ ours[k]) == pytest.approx(min(reach, abs(rise[k])), abs=1e-5, rel=1e-3)
            continue
        length = np.abs(ours[k]).max() if norm == "linf" else np.linalg.norm(ours[k])
        assert w[k] @ ours[k] == pytest.approx(rise[k], rel=1e-4, abs=1e-5)
        assert length == pytest.approx(solve(x[k], w[k], rise[k]), rel=1e-3, abs=1e-5)


def test_the_step_by_hand():
    x = torch.tensor([[0.5, 0.9], [0.5, 0.5]])
    w = torch.tensor([[1.0, 1.0], [0.0, 0.0]])
    rise = torch.tensor([0.4, 1.0])
    # the second pixel has room for 0.1 only
    torch.testing.assert_close(to_hyperplane(x, w, rise, "linf"), torch.tensor([[0.3, 0.1], [0.0, 0.0]]))
    torch.testing.assert_close(to_hyperplane(x, w, rise, "l2"), torch.tensor([[0.3, 0.1], [0.0, 0.0]]))
    torch.testing.assert_close(to_hyperplane(x, w, -rise, "linf"), torch.tensor([[-0.2, -0.2], [0.0, 0.0]]))
    tiny = to_hyperplane(x, w * 1e-30, rise * 1e-30, "l2")
    torch.testing.assert_close(tiny, torch.tensor([[0.3, 0.1], [0.0, 0.0]]))


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_finds_the_exact_distance_of_a_linear_boundary(norm):
    generator = torch.Generator().manual_seed(0)
    weights, bias = torch.randn(5, 16, generator=generator), torch.zeros(5)
    x = 0.5 + 0.1 * torch.randn(20, 1, 4, 4, generator=generator)
    logits = x.flatten(1) @ weights.T
    y = logits.argmax(1)
    difference = weights[None] - weights[y][:, None]
    length = difference.abs().sum(2) if norm == "linf" else difference.norm(dim=2)
    distance = ((logits.gather(1, y[:, None]) - logits) / length).scatter(1, y[:, None], float("inf")).amin(1)
    for eps in (0.5 * distance.median(), distance.median(), 1.5 * distance.median()):
        attack = FAB(steps=20, n_target_classes=4, precision="float32")
        found = attack(linear(weights, bias), x, y, Threat(norm, float(eps))).success
        clear = (distance / eps - 1).abs() > 0.02
        assert torch.equal(found[clear], (distance < eps)[clear])


def test_what_is_not_found_in_the_ball_comes_back_as_it_was(victim, images):
    x, y = images
    result = FAB(steps=10, n_target_classes=2)(victim, x, y, Threat("linf", 0.04))
    assert 0 < result.success.sum() < len(y)
    assert torch.equal(result.x_adv[~result.success], x[~result.success])
    assert (result.x_adv != x)[result.success].any()


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.06), ("l2", 0.7)])
def test_not_weaker_than_pgd(victim, images, norm, eps):
    x, y = images[0][:40], images[1][:40]
    pgd = PGD(steps=25)(victim, x, y, Threat(norm, eps)).success
    assert 0 < pgd.sum() < len(y)
    assert FAB(steps=25, n_target_classes=4)(victim, x, y, Threat(norm, eps)).success.sum() >= pgd.sum()


@pytest.mark.parametrize(
    "settings",
    [
        {"steps": 0},
        {"restarts": 0},
        {"n_target_classes": 0},
        {"alpha_max": 2},
        {"eta": 0.9},
        {"beta": 1.0},
        {"beta": 0.0},
    ],
)
def test_settings_that_would_disarm_it_are_refused(settings):
    with pytest.raises(UserError, match=r"FAB\.\w+ is .*: give a "):
        FAB(**settings)
