"""APGD: its schedule and step by hand, its losses, and its strength."""

import pytest
import torch

from robustforge.attacks.apgd import APGD, checkpoints
from robustforge.attacks.core.surface import Surface
from robustforge.attacks.pgd import PGD
from robustforge.losses.classification import margin_targeted
from robustforge.types import DefenseOutput, Threat, UserError


def test_checkpoints_by_hand():
    # windows of 22, 19, 16, 13, 10, 7, then 6 per cent
    assert checkpoints(100) == {22: 22, 41: 19, 57: 16, 70: 13, 80: 10, 87: 7, 93: 6, 99: 6}
    assert checkpoints(10) == {2: 2, 3: 1, 4: 1, 5: 1, 6: 1, 7: 1, 8: 1, 9: 1}
    assert checkpoints(1) == {}


def line(function):
    """A surface on one-pixel images whose margin for label 0 is ``function(pixel)``, and the pixels it was asked for."""
    asked = []

    def logits(x, _):
        pixel = x.flatten(1)[:, 0]
        asked.append(pixel.detach().clone())
        value = function(pixel)
        return torch.stack([0 * value, value, value - 5, value - 7], 1)

    surface = Surface(
        "line", lambda x, y: (logits(x, y),), lambda x, y: DefenseOutput(logits(x, y)), torch.nn.Identity()
    )
    return surface, asked


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_first_two_steps_by_hand(norm):
    surface, asked = line(lambda pixel: pixel - 5)
    x, eps = torch.full((1, 1, 1, 1), 0.5), 0.25
    result = APGD(steps=2, loss="margin", precision="float32")(surface, x, torch.tensor([0]), Threat(norm, eps))
    start = asked[1]  # after the judging of the clean image
    first = torch.tensor([0.75])  # 2 eps ahead, cut to the ball, without momentum
    torch.testing.assert_close(asked[2], first)
    # three quarters of a new step, which ends where it began, and a quarter of the last one, cut to the ball again
    torch.testing.assert_close(asked[3], (first + 0.25 * (first - start)).clamp(max=0.75))
    torch.testing.assert_close(result.x_adv.flatten(), first)
    assert result.backwards.tolist() == [2]
    assert result.forwards.tolist() == [3]
    assert not result.success.any()


def test_steps_shrink_until_the_peak_is_met():
    # a peak at 0.437 that steps of fixed size jump over
    peak = 0.437
    surface, asked = line(lambda pixel: -(pixel - peak).abs() - 1)
    attack = APGD(steps=100, loss="margin", precision="float32")
    result = attack(surface, torch.full((3, 1, 1, 1), 0.5), torch.zeros(3, dtype=torch.int64), Threat("linf", 0.3))
    assert ((result.x_adv.flatten() - peak).abs() < 0.01).all()
    moves = torch.stack(asked[1:-2]).diff(dim=0).abs()
    assert moves[:10].amax() > 0.1
    assert moves[-6:].amax() < 0.05
    assert not result.success.any()
    assert (result.trace.loss_gain > 0).all()


def test_an_image_stops_at_its_first_fooling_iterate():
    surface, _ = line(lambda pixel: pixel - 0.7)  # wrong from 0.7 on, which the first step reaches
    x = torch.tensor([0.5, 0.9, 0.1]).view(3, 1, 1, 1)
    y = torch.zeros(3, dtype=torch.int64)
    result = APGD(steps=50, loss="margin", precision="float32")(surface, x, y, Threat("linf", 0.25))
    assert result.success.tolist() == [True, True, False]
    assert result.backwards.tolist()[1:] == [0, 50]
    assert result.backwards[0] <= 2
    assert torch.equal(result.x_adv[1], x[1])


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.06), ("l2", 0.7)])
@pytest.mark.parametrize("loss", ["cross_entropy", "margin"])
def test_not_weaker_than_pgd_of_as_many_steps(victim, images, norm, eps, loss):
    x, y = images
    ours = APGD(steps=30, loss=loss)(victim, x, y, Threat(norm, eps))
    pgd = PGD(steps=30, loss=loss)(victim, x, y, Threat(norm, eps))
    assert ours.success.sum() >= pgd.success.sum()
    assert 0 < pgd.success.sum() < len(y)


def test_targets_and_restarts_only_add(victim, images):
    x, y, threat = images[0][:32], images[1][:32], Threat("linf", 0.05)
    one = APGD("a", steps=10, precision="float32")(victim, x, y, threat).success
    more = APGD("a", steps=10, restarts=4, precision="float32")(victim, x, y, threat)
    assert (more.success >= one).all()
    few = APGD("t", steps=20, loss="dlr", n_target_classes=1, precision="float32")(victim, x, y, threat)
    nine = APGD("t", steps=20, loss="dlr", n_target_classes=9, precision="float32")(victim, x, y, threat)
    assert nine.success.sum() >= few.success.sum()
    standing = ~nine.success
    assert (nine.backwards[standing] == 9 * 20).all()
    assert (few.backwards[~few.success] == 20).all()
    assert nine.trace.loss_gain[standing].isfinite().all()


def test_skipped_classes_are_those_of_an_attack_at_the_first():
    # class k is reached by raising pixel k: each of the nine is the goal of one run, and of no other
    slopes = torch.tensor([0.0, 9, 8, 7, 6, 5, 4, 3, 2, 1])
    aimed = []

    class Network(torch.nn.Module):
        def forward(self, x):
            return x.flatten(1)[:, :10] * slopes + torch.tensor([99.0, *range(9, 0, -1)])

    def watched(logits, goal):
        aimed.append(goal[:, 1].unique().tolist())
        return margin_targeted(logits, goal[:, 0], goal[:, 1])

    for order in ("logits", "malt"):
        for skip, left in ((0, [1, 2, 3, 4]), (2, [3, 4])):
            attack = APGD("t", steps=3, loss="margin", n_target_classes=4, skip_target_classes=skip, order=order)
            object.__setattr__(attack, "_objective", lambda session: watched)
            result = attack(Network(), torch.full((2, 1, 4, 4), 0.5), torch.zeros(2, dtype=int), Threat("linf", 0.1))
            assert sorted({one for goals in aimed for one in goals}) == left
            assert not result.success.any()
            assert (result.backwards >= 3 * len(left)).all()
            aimed.clear()


def test_giving_up_spends_less(victim, images):
    x, y, threat = images[0][:12], images[1][:12], Threat("linf", 0.03)
    settings = {"steps": 60, "loss": "dlr", "n_target_classes": 3, "precision": "float32"}
    stubborn = APGD("t", **settings)(victim, x, y, threat)
    quick = APGD("t", give_up=True, **settings)(victim, x, y, threat)
    assert quick.backwards.sum() < 0.8 * stubborn.backwards.sum()
    assert (quick.success <= stubborn.success).all()
    assert stubborn.success.sum() - quick.success.sum() <= 1


@pytest.mark.parametrize(("classes", "targets", "said"), [(2, 0, True), (3, 0, False), (3, 9, True), (4, 9, False)])
def test_dlr_with_too_few_classes_says_that_it_takes_the_margin(recwarn, classes, targets, said):
    weights = torch.randn(classes, 16, generator=torch.Generator().manual_seed(0))

    def logits(x, _):
        return x.flatten(1) @ weights.T

    surface = Surface("s", lambda x, y: (logits(x, y),), lambda x, y: DefenseOutput(logits(x, y)), torch.nn.Identity())
    x = torch.full((2, 1, 4, 4), 0.5)
    result = APGD(steps=5, loss="dlr", n_target_classes=targets)(
        surface, x, logits(x, 0).argmax(1), Threat("linf", 0.5)
    )
    assert result.success.all()
    assert any(f"not defined for {classes} classes, margin" in str(w.message) for w in recwarn) == said


@pytest.mark.parametrize(
    "settings",
    [
        {"steps": 0},
        {"restarts": 0},
        {"loss": "dlrr"},
        {"n_target_classes": -1},
        {"skip_target_classes": 1},
        {"n_target_classes": 3, "skip_target_classes": 3},
        {"give_up": True},
        {"precision": "half"},
    ],
)
def test_settings_that_would_disarm_it_are_refused(settings):
    with pytest.raises(UserError, match=r"Attack apgd|APGD\.\w+ is .*: give "):
        APGD(**settings)
