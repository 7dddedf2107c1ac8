"""Carlini & Wagner's attack: its box, its search over c, exact distances, and what every attack owes."""

import pytest
import torch
from attack_cases import check_independence, check_properties, distance, linear, linear_case

from robustforge.attacks.carlini_wagner import CarliniWagner, _Search, to_pixels, to_w
from robustforge.types import Threat, UserError

FREE = Threat("l2", 28.0)
SHORT = CarliniWagner(search_steps=3, steps=50, initial_c=1.0)


def test_the_box_is_inverted_everywhere_and_flat_nowhere():
    x = torch.cat([torch.tensor([0.0, 1.0]), torch.linspace(0, 1, 99)])
    w = to_w(x).requires_grad_(True)
    assert w.isfinite().all()
    back, slope = to_pixels(w)
    torch.testing.assert_close(back, x, atol=1e-6, rtol=0)
    assert back.min() >= 0
    assert back.max() <= 1
    # the derivative is that of the unclamped map, at the ends too
    (expected,) = torch.autograd.grad(((w.tanh() / 0.7 + 1) / 2).sum(), w)
    torch.testing.assert_close(slope, expected)
    assert slope.min() > 0.3


@pytest.mark.slow
def test_what_every_attack_owes():
    check_properties(CarliniWagner(search_steps=3, steps=10))


def test_short_runs_owe_it_too():
    check_properties(CarliniWagner(search_steps=2, steps=4), shapes=((2, 3, 17, 23),))


def test_adam_of_each_image_is_torchs_at_its_own_step():
    x = torch.full((2, 1, 2, 2), 0.5)
    search = _Search.start(torch.arange(2), x, 1.0)
    leaf = to_w(x[1:]).requires_grad_(True)
    adam = torch.optim.Adam([leaf], lr=0.01)
    generator = torch.Generator().manual_seed(0)
    for number in range(7):
        gradient = torch.randn(2, 1, 2, 2, generator=generator)
        search.adam(gradient, 0.01)
        if number == 2:
            search.next_round(torch.tensor([1]))
        if number > 2:
            leaf.grad = gradient[1:].clone()
            adam.step()
    torch.testing.assert_close(search.w[1:], leaf.detach())
    assert search.step.tolist() == [7, 4]


def test_the_search_over_c_grows_tenfold_and_then_bisects():
    search = _Search.start(torch.arange(1), torch.rand(1, 1, 2, 2), 0.01)
    seen = []
    for found in (False, False, True, False, True):
        search.found[:] = found
        seen.append(round(float(search.c), 6))
        search.next_round(torch.tensor([0]))
    assert seen == [0.01, 0.1, 1.0, 0.55, 0.775]
    assert float(search.c) == pytest.approx((0.55 + 0.775) / 2)


@pytest.mark.parametrize("precision", ["float32", "auto"])
def test_a_linear_classifiers_distance_is_exact(precision):
    surface, x, y, exact = linear_case(classes=2)  # of several, it follows the likeliest, not the nearest
    result = CarliniWagner(precision=precision, steps=300)(surface, x, y, FREE)
    assert result.success.all()
    found = distance(result.x_adv, x, "l2")
    assert (found >= exact["l2"] * (1 - 1e-4)).all()
    assert (found <= exact["l2"] * 1.02).all()


def test_confidence_is_the_margin_of_the_result():
    surface, x, y, exact = linear_case(classes=2)
    weight = surface.modules[1].weight
    result = CarliniWagner(confidence=0.3, precision="float32", steps=300)(surface, x, y, FREE)
    logits = surface.system(result.x_adv, y).logits
    lead = logits.gather(1, 1 - y[:, None]) - logits.gather(1, y[:, None])
    assert (lead >= 0.3).all()
    further = exact["l2"] + 0.3 / (weight[0] - weight[1]).norm().detach()
    assert (distance(result.x_adv, x, "l2") <= further * 1.02).all()


def test_black_and_white_pixels_move():
    # the only way out leads through pixels at exactly 0 and exactly 1
    weight = torch.zeros(2, 8)
    weight[1, :2], weight[1, 2:4] = 1.0, -1.0
    x = torch.tensor([0.0, 0.0, 1.0, 1.0, 0.5, 0.5, 0.0, 1.0]).view(1, 1, 2, 4)
    surface = linear(weight, torch.tensor([0.0, 1.0]))
    result = CarliniWagner(precision="float32")(surface, x, torch.tensor([0]), FREE)
    assert result.success.all()
    result = CarliniWagner(precision="float32")(linear(weight, torch.tensor([0.0, 1.6])), x, torch.tensor([0]), FREE)
    # gap 0.4 over four pixels: 0.1 each
    assert result.success.all()
    assert float(distance(result.x_adv, x, "l2")) == pytest.approx(0.2, rel=0.02)


def test_targets_are_reached_and_cost_more(victim, trained, images):
    x, y = images[0][:6], images[1][:6]
    loose = SHORT(victim, x, y, FREE)
    aimed = CarliniWagner(search_steps=3, steps=50, initial_c=1.0, target="next")(victim, x, y, FREE)
    right = trained(x).argmax(1) == y
    assert (trained(aimed.x_adv).argmax(1) == (y + 1) % 10).all()
    assert (distance(aimed.x_adv, x, "l2") >= 0.98 * distance(loose.x_adv, x, "l2"))[right].all()


def test_a_budget_decides_who_falls_and_the_others_are_projected(victim, images):
    x, y = images[0][:8], images[1][:8]
    free = SHORT(victim, x, y, FREE)
    norms = distance(free.x_adv, x, "l2")
    eps = float(norms[norms > 0].median())
    bound = SHORT(victim, x, y, Threat("l2", eps))
    assert torch.equal(bound.success, (norms <= eps) & free.success)
    outside = ~bound.success
    torch.testing.assert_close(distance(bound.x_adv, x, "l2")[outside], torch.full((int(outside.sum()),), eps))
    within = SHORT(victim, x, y, Threat("linf", 1.0))
    assert within.success.all()


def test_batch_size_and_order_do_not_matter(victim, images):
    attack = CarliniWagner(search_steps=2, steps=60, initial_c=1.0, patience=5, precision="float32")
    whole = check_independence(attack, victim, images[0][:8], images[1][:8], FREE, tolerance=0.01)
    assert len(whole.backwards.unique()) > 1  # each image stops by itself


@pytest.mark.parametrize(
    "settings",
    [
        {"steps": 0},
        {"search_steps": 0},
        {"learning_rate": -1.0},
        {"initial_c": 0.0},
        {"confidence": -1.0},
        {"patience": 0},
    ],
)
def test_impossible_settings_are_refused(settings):
    with pytest.raises(UserError):
        CarliniWagner(**settings)
