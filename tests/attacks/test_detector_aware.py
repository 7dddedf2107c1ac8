"""Evading a classifier and its detector at once."""

import pytest
import torch

from robustforge.attacks.core.surface import Surface
from robustforge.attacks.detector_aware import DetectorAware, _without, scaled_excess
from robustforge.attacks.pgd import PGD
from robustforge.types import DefenseOutput, Threat, UserError


def guarded(network, several=False):
    """A classifier that rejects images whose left or right half is brighter than usual by its own score."""

    def system(x, _=None):
        halves = torch.stack([x[..., :14].flatten(1).mean(1), x[..., 14:].flatten(1).mean(1)], 1)
        return DefenseOutput(network(x), halves.amax(1), detector_scores=halves if several else None)

    return Surface("end_to_end", lambda x, y: (network(x),), system, network)


@pytest.mark.parametrize("schedule", ["penalty", "selective", "orthogonal"])
@pytest.mark.parametrize("several", [False, True])
def test_evades_where_a_blind_attack_is_rejected(trained, images, schedule, several):
    x, y = images
    surface = guarded(trained, several)
    threshold = float(surface.system(x).risk.quantile(0.9))
    threat = Threat("linf", 0.15)
    clean = surface.system(x)
    assert ((clean.logits.argmax(1) != y) & (clean.risk <= threshold)).float().mean() < 0.2
    blind = PGD(steps=20, loss="margin", early_stop=False)(surface, x, y, threat, threshold=threshold)
    aware = DetectorAware(schedule=schedule, steps=40)(surface, x, y, threat, threshold=threshold)
    answer = surface.system(aware.x_adv)
    assert torch.equal(aware.success, (answer.logits.argmax(1) != y) & (answer.risk <= threshold))
    assert aware.success.sum() > blind.success.sum()
    assert aware.success.float().mean() > 0.8


@pytest.mark.parametrize("schedule", ["penalty", "selective", "orthogonal"])
def test_without_a_threshold_it_is_as_strong_as_pgd(victim, images, schedule):
    x, y = images
    threat = Threat("linf", 0.08)
    aware = DetectorAware(schedule=schedule, steps=20)(victim, x, y, threat)
    plain = PGD(steps=20, loss="margin")(victim, x, y, threat)
    assert abs(int(aware.success.sum()) - int(plain.success.sum())) <= 1


def test_noise_is_a_bad_start_against_a_detector_that_sees_it(trained, images):
    x, y = images

    def rough(x, _=None):
        return DefenseOutput(trained(x), x.diff(dim=3).abs().flatten(1).mean(1))

    surface = Surface("end_to_end", lambda x, y: (trained(x),), rough, trained)
    threshold = float(rough(x).risk.max())
    clean, random = (
        DetectorAware(start=start, steps=6, step_size=0.02)(
            surface, x, y, Threat("linf", 0.3), threshold=threshold
        ).success.sum()
        for start in ("clean", "random")
    )
    assert clean > random


def test_a_threshold_nobody_passes_lets_nothing_through(trained, images):
    x, y = images
    result = DetectorAware(steps=5, restarts=2)(guarded(trained), x, y, Threat("linf", 0.3), threshold=-1.0)
    assert not result.success.any()
    assert result.backwards.eq(10).all()


def test_targets_are_aimed_at(trained, images):
    x, y = images
    surface = guarded(trained)
    result = DetectorAware(steps=40, target="next")(surface, x, y, Threat("linf", 0.3), threshold=1.0)
    assert (trained(result.x_adv).argmax(1) == (y + 1) % 10).float().mean() > 0.8


def test_excess_by_hand():
    logits = torch.zeros(2, 3)
    assert scaled_excess(DefenseOutput(logits, torch.tensor([1.0, 4.0])), 2.0).tolist() == [[-0.5], [1.0]]
    parts = torch.tensor([[1.0, 4.0], [2.0, 1.0]])
    assert scaled_excess(DefenseOutput(logits, parts.amax(1), detector_scores=parts), 2.0).tolist() == [
        [-0.5, 1.0],
        [0.0, -0.5],
    ]
    assert scaled_excess(DefenseOutput(logits, torch.tensor([1.0, 4.0])), None).tolist() == [[0.0], [0.0]]
    assert scaled_excess(DefenseOutput(logits), 2.0).tolist() == [[0.0], [0.0]]


def test_orthogonal_to_the_other_gradient():
    label, quiet = torch.randn(4, 1, 3, 3), torch.randn(4, 1, 3, 3)
    active = torch.tensor([True, False, True, False])
    other = torch.where(active.view(-1, 1, 1, 1), label, quiet)
    direction = _without(label, quiet, active)
    torch.testing.assert_close((direction * other).flatten(1).sum(1), torch.zeros(4), atol=1e-5, rtol=0)
    wanted = torch.where(active.view(-1, 1, 1, 1), quiet, label)
    assert ((direction * wanted).flatten(1).sum(1) > 0).all()
    assert torch.equal(_without(label, torch.zeros_like(quiet), torch.zeros(4, dtype=torch.bool)), label)


@pytest.mark.parametrize(
    "settings", [{"schedule": "alternate"}, {"start": "noise"}, {"growth": 1.0}, {"steps": 0}, {"confidence": -1.0}]
)
def test_impossible_settings(settings):
    with pytest.raises(UserError):
        DetectorAware(**settings)
