"""Balls of L1 and L0: projections against independent solvers, starts, steps, and attacks inside them."""

import itertools

import numpy as np
import pytest
import torch
from attack_cases import check_independence, check_properties, check_result, distance
from hypothesis import given, settings
from hypothesis import strategies as st

from robustforge.attacks.apgd import APGD
from robustforge.attacks.bim import BIM
from robustforge.attacks.carlini_wagner import CarliniWagner
from robustforge.attacks.core.geometry import (
    NORMS,
    ascent_direction,
    inside,
    project,
    projected_step_,
    random_sign,
    random_start,
)
from robustforge.attacks.core.sparse import largest, project_l0, project_l1
from robustforge.attacks.deepfool import DeepFool
from robustforge.attacks.fab import FAB
from robustforge.attacks.fgsm import FGSM
from robustforge.attacks.jsma import JSMA
from robustforge.attacks.multi_targeted import MultiTargeted
from robustforge.attacks.noise import Noise
from robustforge.attacks.pgd import PGD
from robustforge.attacks.random_sign import RandomSign
from robustforge.attacks.square import Square
from robustforge.randomness import SampleRandom
from robustforge.types import Threat, UserError

SPARSE = [Threat("l1", 8.0), Threat("l0", 12), Threat("l0_pixels", 9), Threat("l1", 3000.0)]
EXACT = {"precision": "float32"}
STEPS = [
    PGD(steps=4, restarts=2, **EXACT), BIM(steps=3, momentum=1.0, **EXACT), FGSM(random_share=0.3, **EXACT),
    MultiTargeted(classes=2, steps=3, **EXACT),
]  # fmt: skip
L1_ONLY = [
    APGD("ce", steps=25, restarts=2, **EXACT), APGD("t", steps=25, loss="dlr", n_target_classes=3, **EXACT),
    FAB(steps=4, restarts=2, n_target_classes=3, **EXACT), Square(n_queries=60, restarts=2),
]  # fmt: skip


def image(*values):
    return torch.tensor([[list(map(float, values))]])[:, :, None]


def nearest_l1(moved, x, radius):
    """The projection by bisection on the threshold, in double precision."""

    def step(threshold):
        room = np.where(moved > x, 1 - x, x)
        return np.sign(moved - x) * np.minimum(np.maximum(np.abs(moved - x) - threshold, 0), room)

    low, high = 0.0, np.abs(moved - x).max() + 1
    if np.abs(step(0.0)).sum() <= radius:
        return x + step(0.0)
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if np.abs(step(middle)).sum() > radius else (low, middle)
    return x + step(high)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), size=st.integers(1, 30), radius=st.floats(0, 6), spread=st.floats(0.01, 3))
def test_the_l1_projection_is_the_nearest_point(seed, size, radius, spread):
    draw = np.random.default_rng(seed)
    x = draw.uniform(-0.3, 1.3, (3, size)).clip(0, 1)
    moved = x + spread * draw.normal(size=(3, size)) * (draw.uniform(size=(3, size)) < 0.7)
    ours = project_l1(torch.tensor(moved, dtype=torch.float32), torch.tensor(x, dtype=torch.float32), radius)
    for k in range(3):
        assert ours[k].double().numpy() == pytest.approx(nearest_l1(moved[k], x[k], radius), abs=2e-5)


def test_the_l1_projection_by_hand():
    x, moved = image(0.5, 0.5, 0.9, 0.5), image(0.9, 0.3, 1.5, 0.5)
    # 0.1 of the third value's 0.6 has room; the threshold is 0.1: 0.3 + 0.1 + 0.1
    torch.testing.assert_close(project(moved, x, Threat("l1", 0.5)), image(0.8, 0.4, 1.0, 0.5))
    torch.testing.assert_close(project(moved, x, Threat("l1", 9.0)), image(0.9, 0.3, 1.0, 0.5))
    assert torch.equal(project(moved, x, Threat("l1", 0.0)), x)
    each = project_l1(moved.expand(2, -1, -1, -1), x.expand(2, -1, -1, -1), torch.tensor([0.5, 9.0]))
    torch.testing.assert_close(each, torch.cat([image(0.8, 0.4, 1.0, 0.5), image(0.9, 0.3, 1.0, 0.5)]))


def test_the_l0_projection_is_the_nearest_of_all_choices():
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(20, 1, 1, 5, generator=generator)
    moved = x + torch.randn(x.shape, generator=generator)
    landed = project_l0(moved, x, 2, pixels=False)
    assert (distance(landed, x, "l0") <= 2).all()
    for pair in itertools.combinations(range(5), 2):
        other = x.clone()
        other[..., list(pair)] = moved[..., list(pair)].clamp(0, 1)
        assert ((landed - moved).flatten(1).norm(dim=1) <= (other - moved).flatten(1).norm(dim=1) + 1e-6).all()


def test_pixels_are_positions_and_values_are_channels():
    x = torch.full((1, 2, 1, 3), 0.5)
    moved = x + torch.tensor([[[[0.1, 0.3, 0.0]], [[0.1, 0.0, 0.2]]]])
    assert [float(NORMS[name](moved - x)) for name in ("l0", "l0_pixels")] == [4, 3]
    values, positions = project(moved, x, Threat("l0", 2)), project(moved, x, Threat("l0_pixels", 2))
    torch.testing.assert_close(values - x, torch.tensor([[[[0.0, 0.3, 0.0]], [[0.0, 0.0, 0.2]]]]))
    torch.testing.assert_close(positions - x, torch.tensor([[[[0.0, 0.3, 0.0]], [[0.0, 0.0, 0.2]]]]))
    positions = project(moved, x, Threat("l0_pixels", 3))
    assert torch.equal(positions, moved)
    # the third position alone: two channels that count as one
    assert float(NORMS["l0_pixels"](project(2 * moved - x, x, Threat("l0_pixels", 1)) - x)) == 1


def test_largest_by_hand():
    size = torch.tensor([[3.0, 1.0, 2.0], [0.0, 5.0, 5.0]])
    assert largest(size, 2).tolist() == [[True, False, True], [False, True, True]]
    assert largest(size, torch.tensor([1, 0])).tolist() == [[True, False, False], [False, False, False]]
    assert largest(size, 9).all()


def test_directions_by_hand():
    gradient = image(*range(-3, 97), -98)  # 101 values: the largest 2 of L1
    step = ascent_direction(gradient, Threat("l1", 1.0)).flatten()
    assert step.nonzero().flatten().tolist() == [99, 100]
    assert step[99:].tolist() == [0.5, -0.5]
    # the mean size is 2, the count 4: the average value moves by 8 for a step of 4
    torch.testing.assert_close(ascent_direction(image(1, -2, 3, 2), Threat("l0", 4)), image(1, -2, 3, 2))
    for norm in ("l1", "l0", "l0_pixels"):
        assert not ascent_direction(image(0, 0), Threat(norm, 2)).any()


def test_an_l1_step_moves_values_that_have_room():
    x = image(1.0, *[0.5] * 99)
    gradient = image(9.0, 5.0, *[1.0] * 98)  # the largest 1 % is one value, and the first is at 1 already
    moved = projected_step_(x, gradient, 0.25, x, Threat("l1", 1.0), None)
    torch.testing.assert_close(moved, image(1.0, 0.75, *[0.5] * 98))


@pytest.mark.parametrize("threat", SPARSE, ids=str)
def test_starts_and_random_directions(threat):
    x = torch.rand(400, 2, 4, 5, generator=torch.Generator().manual_seed(0)).mul(1.4).sub(0.2).clamp(0, 1)
    index, random = torch.arange(len(x)), SampleRandom(0, "s")
    start, sign = random_start(x, index, threat, random), random_sign(x, index, threat, random)
    assert inside(start, x, threat).all()
    assert (start != x).flatten(1).any(1).all()
    if threat.norm == "l1":
        torch.testing.assert_close(distance(sign, 0 * sign, "l1"), torch.ones(len(x)))
        assert sign.mean(0).abs().max() < 0.01
    else:
        count = min(threat.eps, 20 if threat.norm == "l0_pixels" else 40)
        assert (distance(sign, 0 * sign, threat.norm) == count).all()
        share = (sign != 0).float().mean(0)  # every place is as likely
        assert (share - share.mean()).abs().max() < 0.11


def test_a_start_in_the_l1_ball_is_uniform():
    x, threat = torch.full((20_000, 1, 1, 3), 0.5), Threat("l1", 0.4)
    start = random_start(x, torch.arange(len(x)), threat, SampleRandom(0, "s"))
    share = ((start - x).flatten(1).abs().sum(1) / 0.4) ** 3  # of the volume within that length
    values = share.double().sort().values
    assert (values - torch.arange(1, len(x) + 1) / len(x)).abs().max() < 1.95 / len(x) ** 0.5


@pytest.mark.parametrize("attack", [*STEPS, Noise(), Noise(kind="gaussian"), RandomSign()], ids=lambda a: a.name)
def test_what_every_attack_owes_in_sparse_balls(attack):
    if isinstance(attack, RandomSign):  # moves every image, fooled or not
        from attack_cases import random_case

        surface, x, y = random_case((3, 2, 9, 9))
        for threat in SPARSE:
            check_result(attack(surface, x, y, threat), surface, x, y, threat)
        return
    check_properties(attack, shapes=((3, 1, 28, 28), (2, 3, 17, 23)), threats=SPARSE)


@pytest.mark.parametrize("attack", L1_ONLY, ids=lambda a: a.name)
def test_what_every_attack_owes_in_l1(attack):
    check_properties(attack, shapes=((3, 1, 28, 28), (2, 3, 17, 23)), threats=[SPARSE[0], SPARSE[3]])


@pytest.mark.parametrize("attack", [*STEPS[:2], *L1_ONLY[:2]], ids=lambda a: a.name)
def test_batch_size_and_order_do_not_matter_in_l1(victim, images, attack):
    check_independence(attack, victim, images[0][:9], images[1][:9], Threat("l1", 8.0), pixels=0.97)


def test_strength_grows_from_one_step_to_apgd(victim, images):
    threat = Threat("l1", 12.0)
    left = [
        int((~attack(victim, *images, threat).success).sum())
        for attack in (RandomSign(), FGSM(), PGD(steps=40), APGD(steps=40))
    ]
    assert left[0] > left[1] > left[2] >= left[3]
    assert left[3] < 0.5 * len(images[1])


def test_more_values_break_more(victim, images):
    left = [int((~PGD(steps=20)(victim, *images, Threat("l0", count)).success).sum()) for count in (4, 25, 100)]
    assert left[0] > left[1] > left[2]


@pytest.mark.parametrize(
    ("attack", "norm"),
    [
        (APGD(), "l0"),
        (Square(), "l0_pixels"),
        (FAB(), "l0"),
        (CarliniWagner(), "l1"),
        (DeepFool(), "l1"),
        (JSMA(), "l1"),
    ],
    ids=str,
)
def test_a_norm_that_an_attack_does_not_know_is_refused(victim, images, attack, norm):
    threat = Threat(norm, 3)
    with pytest.raises(UserError, match=rf"Attack {attack.name} searches in .*threat is in {norm}: set threat="):
        attack.fits((1, 28, 28), 10, threat)
    with pytest.raises(UserError, match=attack.name):
        attack(victim, images[0][:2], images[1][:2], threat)


def test_jsma_counts_its_values(victim, images):
    x, y = images[0][:8], images[1][:8]
    few, many = (JSMA()(victim, x, y, Threat("l0", count)) for count in (6, 400))
    assert (distance(few.x_adv, x, "l0") <= 6).all()
    assert many.success.sum() > few.success.sum()
