"""DeepFool: the shortest step in a box, exact distances, and what every attack owes."""

import pytest
import torch
from attack_cases import THREATS, check_independence, check_properties, distance, linear, linear_case
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from robustforge.attacks.deepfool import DeepFool, way_in_box
from robustforge.types import Threat, UserError

FREE = {"l2": Threat("l2", 28.0), "linf": Threat("linf", 1.0)}


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), share=st.floats(0.01, 0.9), linf=st.booleans(), pixels=st.integers(2, 30))
def test_the_way_is_the_shortest_in_the_box(seed, share, linf, pixels):
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(1, pixels, generator=generator).mul(1.6).sub(0.3).clamp(0, 1).double()
    slope = torch.randn(1, 1, pixels, generator=generator).double()
    room = torch.where(slope[0] > 0, 1 - x, x)
    most = float((slope[0].abs() * room).sum())
    assume(most > 0.01)
    steps, length = way_in_box(x, slope, torch.tensor([[share * most]]).double(), linf)
    # independently: bisection for the scale of the clipped direction
    low, high = 0.0, 1e4
    for _ in range(200):
        middle = (low + high) / 2
        size = torch.minimum(middle * (torch.ones_like(room) if linf else slope[0].abs()), room)
        low, high = (middle, high) if float((slope[0].abs() * size).sum()) < share * most else (low, middle)
    exact = float(size.amax() if linf else size.norm())
    assert (x + steps[0] >= -1e-9).all()
    assert (x + steps[0] <= 1 + 1e-9).all()
    reached = float((slope * steps).sum())
    assert reached <= share * most * (1 + 1e-6)
    if reached >= share * most * (1 - 1e-6):  # Newton came to its end
        assert float(length) == pytest.approx(exact, rel=1e-4)
    else:
        assert reached > 0.5 * share * most


def test_the_way_where_the_box_is_far_is_the_papers():
    slope = torch.tensor([[[3.0, -4.0]]])
    x, gap = torch.tensor([[0.5, 0.5]]), torch.tensor([[1.0]])
    steps, length = way_in_box(x, slope, gap, linf=False)
    torch.testing.assert_close(steps[0, 0], torch.tensor([3.0, -4.0]) / 25)  # gap * slope / |slope|^2
    assert float(length) == pytest.approx(0.2)
    steps, length = way_in_box(x, slope, gap, linf=True)
    torch.testing.assert_close(steps[0, 0], torch.tensor([1.0, -1.0]) / 7)
    assert float(length) == pytest.approx(1 / 7)
    # by hand: the first pixel is full after 0.1, so 0.7 is left for the second at a rate of 4
    steps, _ = way_in_box(torch.tensor([[0.9, 0.5]]), slope, gap, linf=True)
    torch.testing.assert_close(steps[0, 0], torch.tensor([0.1, -0.175]))
    assert way_in_box(x, torch.zeros(1, 1, 2), gap, linf=False)[1].isinf().all()


@pytest.mark.parametrize("attack", [DeepFool(steps=5), DeepFool(steps=3, precision="bf16", follow=None)], ids=str)
def test_what_every_attack_owes(attack):
    check_properties(attack)


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_a_linear_classifiers_distance_is_exact(norm):
    surface, x, y, exact = linear_case()
    result = DeepFool(overshoot=0.0, halvings=12)(surface, x, y, FREE[norm])
    assert result.success.all()
    torch.testing.assert_close(distance(result.x_adv, x, norm), exact[norm], rtol=5e-3, atol=3e-4)
    # the paper's settings take one step, and overshoot by 2 %
    paper = DeepFool(first_step=1.0, follow=None, max_step=1e9, halvings=0)(surface, x, y, FREE[norm])
    torch.testing.assert_close(distance(paper.x_adv, x, norm), 1.02 * exact[norm], rtol=2e-3, atol=3e-4)
    assert (paper.backwards == 3).all()  # three wrong classes


def test_black_and_white_pixels_move():
    weight = torch.zeros(2, 8)
    weight[1, :2], weight[1, 2:4] = 1.0, -1.0
    weight[1, 6], weight[1, 7] = -5.0, 5.0  # strong, and at the end of their range already
    x = torch.tensor([0.0, 0.0, 1.0, 1.0, 0.5, 0.5, 0.0, 1.0]).view(1, 1, 2, 4)
    surface = linear(weight, torch.tensor([0.0, -3.4]))  # lead -0.4: four pixels by 0.1
    for norm, expected in (("l2", 0.2), ("linf", 0.1)):
        result = DeepFool(halvings=12)(surface, x, torch.tensor([0]), FREE[norm])
        assert result.success.all()
        assert float(distance(result.x_adv, x, norm)) == pytest.approx(expected, rel=0.02)


def test_targets_candidates_and_the_norm(victim, trained, images):
    x, y = images[0][:24], images[1][:24]
    right = trained(x).argmax(1) == y
    aimed = DeepFool(target="next")(victim, x, y, FREE["l2"])
    hit = trained(aimed.x_adv).argmax(1) == (y + 1) % 10
    assert hit[right].float().mean() > 0.9
    everyone = DeepFool()(victim, x, y, FREE["l2"])
    assert everyone.success.all()
    few = DeepFool(candidates=1)(victim, x, y, FREE["l2"])
    assert few.success.all()
    assert few.backwards.sum() < everyone.backwards.sum()
    # the attack's own norm, whatever the threat measures
    sharp = DeepFool(norm="linf")(victim, x, y, FREE["l2"])
    assert distance(sharp.x_adv, x, "linf").mean() < distance(everyone.x_adv, x, "linf").mean()
    assert distance(sharp.x_adv, x, "l2").mean() > distance(everyone.x_adv, x, "l2").mean()


def test_a_tighter_budget_projects(victim, images):
    x, y = images[0][:24], images[1][:24]
    for threat in THREATS[1:3]:
        free = DeepFool()(victim, x, y, FREE[threat.norm])
        bound = DeepFool()(victim, x, y, threat)
        fits = distance(free.x_adv, x, threat.norm) <= threat.eps
        assert bound.success[fits].all()
        far = ~bound.success
        norms = distance(bound.x_adv, x, threat.norm)[far]
        assert (norms > 0.9 * threat.eps).all()
        assert (norms <= threat.eps * 1.0001).all()


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_batch_size_and_order_do_not_matter(victim, images, norm):
    check_independence(DeepFool(), victim, images[0][:9], images[1][:9], FREE[norm])


@pytest.mark.parametrize(
    "settings",
    [{"steps": 0}, {"overshoot": -0.1}, {"candidates": 0}, {"follow": 0}, {"norm": "l1"}, {"first_step": 0.0},
     {"halvings": -1}, {"max_step": 0.0}],
)  # fmt: skip
def test_impossible_settings_are_refused(settings):
    with pytest.raises(UserError):
        DeepFool(**settings)
