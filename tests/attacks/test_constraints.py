"""Hinges on label and detector, toward one class after another."""

import pytest
import torch
from torch import nn

from robustforge.attacks.constraints import ConstraintDescent
from robustforge.attacks.core.surface import Surface
from robustforge.attacks.pgd import PGD
from robustforge.types import DefenseOutput, Threat, UserError

CENTRES = torch.stack([torch.full((4,), value) for value in (0.1, 0.5, 0.9)])
Y = torch.zeros(3, dtype=torch.int64)
X = torch.full((3, 1, 2, 2), 0.1)


def distances(x):
    return (x.flatten(1)[:, None] - CENTRES).square().sum(2)


def corners(aimed=True, start=None):
    """Class of the nearest center; risk is the squared distance to it, or, aimed, to the target's."""

    def system(x, _):
        found = distances(x)
        return DefenseOutput(-found, found.amin(1))

    def toward(x, target):
        found = distances(x)
        return DefenseOutput(-found, found.gather(1, target[:, None]).squeeze(1))

    answer = toward if aimed else None
    return Surface(
        "made", lambda x, _: (-distances(x),), system, nn.Identity(), attacker_output=answer, aimed=aimed, start=start
    )  # fmt: skip


@pytest.mark.parametrize("schedule", ["penalty", "selective"])
def test_it_reaches_the_only_target_that_the_budget_lets_it_reach(schedule):
    """Class 1 lies 0.4 away in every pixel: at 0.39 a score of 4 * 0.01^2 is the least one can have."""
    attack = ConstraintDescent(schedule=schedule, steps=60, precision="float32")
    reached = attack(corners(), X, Y, Threat("linf", 0.39), threshold=8e-4)
    assert reached.success.all()
    assert (distances(reached.x_adv).argmin(1) == 1).all()
    beyond = attack(corners(), X, Y, Threat("linf", 0.39), threshold=3e-4)
    assert not beyond.success.any()
    assert (beyond.backwards == 60 * 2 * 2).all(), "every class and restart was tried to the end"


def test_on_an_aimed_surface_the_scores_are_the_targets():
    """Unaimed, the detector's gradient holds the image at its own class; the label's alone has to carry it over."""
    seen = []
    surface = corners()

    def toward(x, target):
        seen.append(target.clone())
        return surface.attacker_output(x, target)

    watched = Surface(
        "made", surface.attacker_logits, surface.system, nn.Identity(), attacker_output=toward, aimed=True
    )
    ConstraintDescent(steps=1, restarts=1, precision="float32")(watched, X, Y, Threat("linf", 0.05), threshold=1e-3)
    assert [target.tolist() for target in seen] == [[1, 1, 1], [2, 2, 2]]  # likeliest first
    seen.clear()
    ConstraintDescent(steps=1, restarts=1, target=2)(watched, X, Y, Threat("linf", 0.05), threshold=1e-3)
    assert [target.tolist() for target in seen] == [[2, 2, 2]]


def test_restarts_begin_at_the_surfaces_images_in_turn_with_random_ones():
    asked = []

    def start(target, index, restart):
        asked.append((target.tolist(), index.tolist(), restart))
        return CENTRES[target].view(-1, 1, 2, 2)

    attack = ConstraintDescent(steps=1, restarts=3, classes=1, precision="float32")
    attack(corners(start=start), X, Y, Threat("linf", 0.2), threshold=1e-6, index=torch.tensor([7, 8, 9]))
    assert asked == [([1, 1, 1], [7, 8, 9], 0), ([1, 1, 1], [7, 8, 9], 2)]
    # an image that the budget lets through as it is needs no step
    once = ConstraintDescent(steps=1, restarts=1, classes=1, precision="float32")
    found = once(corners(start=start), X, Y, Threat("linf", 0.45), threshold=1e-6)
    assert found.success.all()
    torch.testing.assert_close(found.x_adv, torch.full_like(X, 0.5))


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.15), ("l2", 2.0)])
def test_it_evades_where_a_blind_attack_is_rejected(trained, images, norm, eps):
    x, y = images

    def system(x, _=None):
        halves = torch.stack([x[..., :14].flatten(1).mean(1), x[..., 14:].flatten(1).mean(1)], 1)
        return DefenseOutput(trained(x), halves.amax(1), detector_scores=halves)

    surface = Surface("end_to_end", lambda x, _: (trained(x),), system, trained)
    threshold = float(system(x).risk.quantile(0.9))
    threat = Threat(norm, eps)
    blind = PGD(steps=20, loss="margin", early_stop=False)(surface, x, y, threat, threshold=threshold)
    aware = ConstraintDescent(steps=30, classes=3)(surface, x, y, threat, threshold=threshold)
    answer = system(aware.x_adv)
    assert torch.equal(aware.success, (answer.logits.argmax(1) != y) & (answer.risk <= threshold))
    assert aware.success.sum() > blind.success.sum()


def test_the_trace_tells_of_the_unweighted_hinges():
    result = ConstraintDescent(steps=30, restarts=1, classes=1, precision="float32")(
        corners(), X, Y, Threat("linf", 0.3), threshold=1e-4
    )
    assert not result.success.any()
    assert (result.trace.loss_gain > 0).all()
    assert (result.trace.zero_gradient == 0).all()


def test_no_budget_no_change_and_no_threshold_is_a_plain_attack():
    assert torch.equal(ConstraintDescent()(corners(), X, Y, Threat("linf", 0.0)).x_adv, X)
    assert ConstraintDescent(steps=40)(corners(), X, Y, Threat("linf", 0.3)).success.all()


@pytest.mark.parametrize(
    "wrong", [{"schedule": "loud"}, {"steps": 0}, {"classes": 0}, {"growth": 1.0}, {"slack": -0.1}, {"restarts": 0}]
)
def test_settings_that_cannot_be_meant(wrong):
    with pytest.raises(UserError):
        ConstraintDescent(**wrong)
