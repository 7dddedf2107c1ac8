"""JSMA: the best pair against brute force, a hand-computed attack, and what every attack owes."""

import pytest
import torch
import torchattacks
from attack_cases import check_independence, check_properties, linear
from hypothesis import given, settings
from hypothesis import strategies as st

from robustforge.attacks.jsma import JSMA, best_pairs, leading_pairs
from robustforge.types import Threat, UserError

FREE = Threat("l2", 28.0)


def brute_force(a, b):
    gain, loss = a[:, :, None] + a[:, None], -(b[:, :, None] + b[:, None])
    allowed = (gain > 0) & (loss > 0) & ~torch.eye(a.shape[1], dtype=torch.bool)
    return torch.where(allowed, gain * loss, 0.0)


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 10_000), pixels=st.integers(2, 40), tilt=st.floats(-2, 2), spent=st.floats(0, 1),
    memory=st.sampled_from([1, 16, 1 << 22]), ties=st.booleans(),
)  # fmt: skip
def test_the_pair_is_brute_forces(seed, pixels, tilt, spent, memory, ties):
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(5, pixels, generator=generator)
    b = torch.randn(5, pixels, generator=generator) + tilt * a
    if ties:
        a, b = a.round(), b.round()
    gone = torch.rand(5, pixels, generator=generator) < spent
    a, b = a.masked_fill(gone, float("-inf")), b.masked_fill(gone, float("inf"))
    pairs, exists = best_pairs(a, b, memory)
    values = brute_force(a, b).nan_to_num(0.0, posinf=0.0, neginf=0.0)
    best = values.flatten(1).amax(1)
    assert torch.equal(exists, best > 0)
    found = values[torch.arange(5), pairs[:, 0], pairs[:, 1]]
    torch.testing.assert_close(found[exists], best[exists])
    assert (pairs[exists, 0] != pairs[exists, 1]).all()


def test_pairs_where_no_pixel_beats_another():
    # gains against losses on a falling curve: nothing can be left out
    a = torch.linspace(0.1, 1, 60)[None]
    b = -1 / a
    pairs, exists = best_pairs(a, b, memory=64)
    values = brute_force(a, b)
    assert exists.all()
    assert float(values[0, pairs[0, 0], pairs[0, 1]]) == pytest.approx(float(values.max()))


def test_relaxed_pairs_break_what_the_paper_gives_up():
    pairs, exists = leading_pairs(torch.tensor([[0.5, -1.0, 2.0, float("-inf")], [-3.0, 1.0, -2.0, float("-inf")]]))
    assert sorted(pairs[0].tolist()) == [0, 2]
    assert exists.tolist() == [True, False]
    # every pixel raises both logits, class 1's more: no pair lowers the other class, and two pixels suffice
    surface = linear(torch.tensor([[1.0, 1.0, 1.0], [3.0, 2.0, 1.5]]), torch.tensor([2.5, 0.0]))
    x, y = torch.zeros(1, 1, 1, 3), torch.tensor([0])
    assert not JSMA(precision="float32", relax=False)(surface, x, y, FREE).success.any()
    result = JSMA(precision="float32")(surface, x, y, FREE)
    assert result.success.all()
    assert result.x_adv.flatten().tolist() == [1.0, 1.0, 0.0]


def test_single_pixels_by_hand():
    """Class 2 is aimed at: pixel 0 raises its logit most and class 1's more, pixels 1 and 2 nobody else's."""
    surface = linear(
        torch.tensor([[0.0, 0, 0, 0], [12.0, 0, 0, 0], [3.0, 2.0, 1.0, 0.5]]), torch.tensor([1.5, 0.0, 0.0])
    )
    x, y = torch.zeros(1, 1, 1, 4), torch.tensor([0])
    attack = JSMA(precision="float32", selection="single", target=2)
    result = attack(surface, x, y, FREE)
    assert result.x_adv.flatten().tolist() == [0.0, 1.0, 1.0, 0.0]
    assert (int(result.backwards), int(result.forwards)) == (2, 4)  # one backward pass a step; two more verdicts
    pairs = JSMA(precision="float32", target=2)(surface, x, y, FREE)
    assert int(pairs.backwards) == 4
    assert result.success.all()


def test_single_pixels_owe_the_same():
    check_properties(JSMA(gamma=0.02, selection="single", aim="best"), shapes=((3, 1, 28, 28), (2, 3, 17, 23)))


def test_what_every_attack_owes():
    check_properties(JSMA(gamma=0.02), shapes=((3, 1, 28, 28), (2, 3, 17, 23)))
    check_properties(JSMA(gamma=0.02, theta=-0.3, aim="best", precision="bf16"), shapes=((1, 3, 17, 23),))


def test_a_linear_classifier_by_hand():
    # class 1 gains 3, 2, 1 from the first pixels, of which the second is white already
    weight = torch.zeros(2, 6)
    weight[1, :4] = torch.tensor([3.0, 2.0, 1.0, -1.0])
    weight[0, :4] = torch.tensor([-1.0, -1.0, -1.0, 1.0])
    x = torch.tensor([0.0, 1.0, 0.0, 0.0, 0.5, 0.0]).view(1, 1, 2, 3)
    surface = linear(weight, torch.tensor([8.0, 0.0]))
    y = torch.tensor([0])
    result = JSMA(precision="float32")(surface, x, y, FREE)
    # logits 7 and 2; the pair (0, 2) makes them 5 and 6
    assert result.success.all()
    assert torch.equal(result.x_adv.flatten(), torch.tensor([1.0, 1.0, 1.0, 0.0, 0.5, 0.0]))
    assert result.backwards.tolist() == [4]  # two derivatives of the clean image, two of the one that is done
    # half of every pixel at a time: not spent, so the same pair twice
    slow = JSMA(theta=0.5, precision="float32")(surface, x, y, FREE)
    assert slow.success.all()
    assert torch.equal(slow.x_adv, result.x_adv)
    # darkening: only the fourth pixel would help, and there is no partner that does not harm it
    assert not JSMA(theta=-1.0, precision="float32")(surface, x, y, FREE).success.any()


def test_the_share_of_pixels_is_kept_and_only_pixels_by_theta_change(victim, images):
    x, y = images[0][:32], images[1][:32]
    result = JSMA(gamma=0.01)(victim, x, y, FREE)
    changed = (result.x_adv != x).flatten(1)
    assert changed.sum(1).max() <= 0.01 * 784
    assert (result.x_adv[result.x_adv != x] == 1).all()
    more = JSMA(gamma=0.3)(victim, x, y, FREE)
    assert more.success.sum() > result.success.sum()
    assert more.success.float().mean() > 0.95


def test_aims(victim, trained, images):
    x, y = images[0][:12], images[1][:12]
    right = trained(x).argmax(1) == y
    best, runner_up, loose, aimed = (
        JSMA(precision="float32", **kind)(victim, x, y, FREE)
        for kind in ({"aim": "best"}, {"aim": "runner_up"}, {"aim": "next"}, {"target": "next"})
    )
    assert best.success.all()
    hit = trained(aimed.x_adv).argmax(1) == (y + 1) % 10
    assert hit.float().mean() > 0.8

    def pixels(result):
        return (result.x_adv != x).flatten(1).sum(1)

    # the first of all classes to fool is no slower than any one of them; to fool is no slower than to reach the target
    assert (pixels(best) <= pixels(runner_up))[runner_up.success & right].all()
    assert (pixels(best) <= pixels(loose))[loose.success & right].all()
    assert (pixels(loose) <= pixels(aimed))[hit & right].all()


def test_pixel_for_pixel_as_torchattacks(victim, trained, images):
    right = (trained(images[0]).argmax(1) == images[1]).nonzero().flatten()[:6]
    x, y = images[0][right], images[1][right]
    ours = JSMA(gamma=0.05, target="next", precision="float32", relax=False)(victim, x, y, FREE).x_adv
    theirs = torchattacks.JSMA(trained, theta=1.0, gamma=0.05)(x.clone(), y)
    hit = trained(theirs).argmax(1) == (y + 1) % 10
    assert hit.any()
    assert torch.equal(trained(ours).argmax(1) == (y + 1) % 10, hit)
    assert torch.equal(ours[hit], theirs[hit])


def test_a_linf_budget_cuts_what_was_found(victim, images):
    x, y = images[0][:20], images[1][:20]
    result = JSMA()(victim, x, y, Threat("linf", 0.3))
    delta = (result.x_adv - x).flatten(1)
    assert delta.abs().max() <= 0.3 + 1e-5
    assert result.success.sum() < JSMA()(victim, x, y, Threat("linf", 1.0)).success.sum()


def test_batch_size_and_order_do_not_matter(victim, images):
    attack = JSMA(gamma=0.1, aim="best", precision="float32")
    check_independence(attack, victim, images[0][:8], images[1][:8], FREE)


@pytest.mark.parametrize("settings", [{"theta": 0.0}, {"theta": 1.5}, {"gamma": 0.0}, {"gamma": 2.0}, {"aim": "all"}])
def test_impossible_settings_are_refused(settings):
    with pytest.raises(UserError):
        JSMA(**settings)
