"""Few pixels, against detectors that see every pixel that changes."""

from itertools import combinations

import pytest
import torch
from attack_cases import EXACT, check_independence, check_properties, check_result

from robustforge.attacks.core.surface import Surface
from robustforge.attacks.detector_aware import DetectorAware
from robustforge.attacks.few_pixels import FewPixels, closest_with_few
from robustforge.attacks.pgd import PGD
from robustforge.types import DefenseOutput, Threat, UserError


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_closest_images_among_all_choices_of_pixels(count, channels):
    torch.manual_seed(0)
    clean, x = torch.rand(20, channels, 2, 2), torch.randn(20, channels, 2, 2)
    found = closest_with_few(x, clean, Threat("linf", 0.3), count)
    held = torch.minimum(torch.maximum(x, clean - 0.3), clean + 0.3).clamp(0, 1)
    distances = []
    for chosen in combinations(range(4), count):
        mask = torch.zeros(4, dtype=torch.bool)
        mask[list(chosen)] = True
        distances.append((torch.where(mask.view(2, 2), held, clean) - x).flatten(1).norm(dim=1))
    torch.testing.assert_close((found - x).flatten(1).norm(dim=1), torch.stack(distances).amin(0))
    assert ((found != clean).any(1).flatten(1).sum(1) <= count).all()


def counting(network):
    """A detector of pixels that lie between the gray levels of clean images, which are sixteenths; it has no slope."""

    def system(images, _=None):
        between = ((images * 16 - (images * 16).round()).abs() > 1e-3).any(1).flatten(1).float().mean(1)
        return DefenseOutput(network(images), between)

    return system


def test_evades_a_detector_that_sees_every_pixel(trained, images):
    x, y = (images[0][:12] * 16).round() / 16, images[1][:12]
    gray = Surface("end_to_end", lambda images, y: (trained(images),), counting(trained), trained)
    threat, threshold = Threat("linf", 0.5), 0.2
    assert float(gray.system(x).risk.max()) <= threshold
    few = FewPixels(steps=20)(gray, x, y, threat, threshold=threshold)
    aware = DetectorAware(steps=60)(gray, x, y, threat, threshold=threshold)
    answer = gray.system(few.x_adv)
    assert torch.equal(few.success, (answer.logits.argmax(1) != y) & (answer.risk <= threshold))
    assert few.success.sum() >= 10 > 4 > aware.success.sum()
    changed = (few.x_adv != x).any(1).flatten(1).float().mean(1)
    assert (changed[few.success] <= 0.5).all()


def test_all_pixels_without_a_detector_are_as_strong_as_pgd(victim, images):
    x, y = images
    threat = Threat("linf", 0.08)
    few = FewPixels(shares=(1.0,), steps=40)(victim, x, y, threat)
    plain = PGD(steps=20, loss="margin")(victim, x, y, threat)
    assert int(few.success.sum()) >= int(plain.success.sum()) - 2
    assert ((few.x_adv - x).abs() <= 0.08 + 1e-6).all()


def test_few_pixels_first_and_more_where_they_are_not_enough(victim, images):
    x, y = images
    shares, threat = (1 / 16, 1.0), Threat("linf", 0.12)
    both = FewPixels(shares=shares, steps=20)(victim, x, y, threat)
    few = FewPixels(shares=shares[:1], steps=20)(victim, x, y, threat)
    assert 0 < few.success.sum() < both.success.sum()
    assert torch.equal(both.x_adv[few.success], few.x_adv[few.success])


def test_a_target_is_aimed_at(trained, images):
    x, y = images
    surface = Surface("end_to_end", lambda x, y: (trained(x),), lambda x, _=None: DefenseOutput(trained(x)), trained)
    result = FewPixels(steps=30, target="next")(surface, x, y, Threat("linf", 0.4))
    assert (trained(result.x_adv).argmax(1) == (y + 1) % 10).float().mean() > 0.8


@pytest.mark.parametrize("wrong", [{"shares": ()}, {"shares": (0.0,)}, {"shares": (1.5,)}, {"steps": 0}])
def test_settings_under_which_it_would_do_nothing_are_refused(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        FewPixels(**wrong)


def test_results_are_judged_as_returned_and_do_not_depend_on_batches(victim, images):
    x, y = images[0][:29], images[1][:29]
    attack, threat = FewPixels(shares=(1 / 8, 1.0), steps=8, **EXACT), Threat("linf", 0.1)
    result = check_independence(attack, victim, x, y, threat, pixels=0.998, sizes=(1, 7))
    check_result(result, victim, x, y, threat)
    assert result.success.any()
    assert not result.success.all()


def test_budget_range_and_odd_inputs():
    check_properties(FewPixels(shares=(1 / 4, 1.0), steps=3), threats=[Threat("linf", 0.1), Threat("linf", 1.0)])
