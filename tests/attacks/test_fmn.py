"""FMN: exact distances, strength, and what every attack owes."""

import pytest
import torch
from attack_cases import check_independence, check_properties, distance, linear, linear_case

from robustforge.attacks.deepfool import DeepFool
from robustforge.attacks.fmn import FMN
from robustforge.types import Threat, UserError

FREE = {"l2": Threat("l2", 28.0), "linf": Threat("linf", 1.0)}


@pytest.mark.parametrize("attack", [FMN(steps=4), FMN(steps=2, precision="bf16", norm="linf")], ids=str)
def test_what_every_attack_owes(attack):
    check_properties(attack)


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_a_linear_classifiers_distance_is_exact(norm):
    surface, x, y, exact = linear_case(classes=2)  # of several, it follows the likeliest, not the nearest
    result = FMN(steps=300, precision="float32")(surface, x, y, FREE[norm])
    assert result.success.all()
    found = distance(result.x_adv, x, norm)
    assert (found >= exact[norm] * (1 - 1e-4)).all()
    assert (found <= exact[norm] * 1.02).all()


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_black_and_white_pixels_move(norm):
    weight = torch.zeros(2, 8)
    weight[1, :2], weight[1, 2:4] = 1.0, -1.0
    x = torch.tensor([0.0, 0.0, 1.0, 1.0, 0.5, 0.5, 0.0, 1.0]).view(1, 1, 2, 4)
    surface = linear(weight, torch.tensor([0.0, 1.6]))
    result = FMN(precision="float32")(surface, x, torch.tensor([0]), FREE[norm])
    assert result.success.all()
    assert float(distance(result.x_adv, x, norm)) == pytest.approx(0.2 if norm == "l2" else 0.1, rel=0.03)


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_stronger_with_steps_and_than_deepfool(victim, images, norm):
    x, y = images
    few, many = (FMN(steps=steps)(victim, x, y, FREE[norm]) for steps in (10, 100))
    deepfool = DeepFool()(victim, x, y, FREE[norm])
    assert many.success.all()
    both = few.success & many.success & deepfool.success
    norms = [distance(result.x_adv, x, norm)[both].mean() for result in (many, few, deepfool)]
    assert norms[0] < norms[1]
    assert norms[0] < norms[2]


def test_targets_are_reached(victim, trained, images):
    x, y = images[0][:16], images[1][:16]
    result = FMN(target="next")(victim, x, y, FREE["l2"])
    assert (trained(result.x_adv).argmax(1) == (y + 1) % 10).all()


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_batch_size_and_order_do_not_matter(victim, images, norm):
    attack = FMN(steps=20, precision="float32")
    check_independence(attack, victim, images[0][:9], images[1][:9], FREE[norm], tolerance=0.01)


@pytest.mark.parametrize(
    "settings", [{"steps": 0}, {"step_size": 0.0}, {"gamma": 1.0}, {"final_gamma": 0.1}, {"norm": "l3"}]
)
def test_impossible_settings_are_refused(settings):
    with pytest.raises(UserError):
        FMN(**settings)
