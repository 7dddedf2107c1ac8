"""Aiming at one class after another, and what an aimed surface is told."""

import pytest
import torch

from robustforge.attacks.core.surface import Surface
from robustforge.attacks.multi_targeted import MultiTargeted
from robustforge.attacks.pgd import PGD
from robustforge.types import DefenseOutput, Threat, UserError


def test_at_least_as_strong_as_pgd_with_a_tenth_of_its_targets(victim, images):
    x, y = images
    threat = Threat("linf", 0.06)
    every = MultiTargeted(steps=10)(victim, x, y, threat)
    one = MultiTargeted(steps=10, classes=1)(victim, x, y, threat)
    assert (every.success >= one.success).all()
    assert int(every.success.sum()) >= int(PGD(steps=10, loss="margin")(victim, x, y, threat).success.sum())
    assert one.backwards.max() <= 10
    assert every.backwards[~every.success].eq(90).all()


def test_an_aimed_surface_is_told_the_class_that_is_wanted(trained, images):
    x, y = images[0][:16], images[1][:16]
    told = []

    def views(x, slots):
        told.append(slots.clone())
        return (trained(x),)

    surface = Surface("s", views, lambda x, _: DefenseOutput(trained(x)), trained, aimed=True)
    MultiTargeted(steps=1, classes=3)(surface, x, y, Threat("linf", 1e-4))
    standing = trained(x).argmax(1) == y
    ranking = trained(x).detach().scatter(1, y[:, None], float("-inf")).argsort(1, descending=True)[standing]
    assert torch.equal(torch.stack(told[1:]), ranking[:, :3].t())


def test_only_a_slot_by_slot_search_opens_a_gated_memory():
    """A system that errs only where pixel 0 says class 3 and pixel 1 agrees: gradients of the open slot say nothing."""
    x, y = torch.full((6, 1, 2, 2), 0.5), torch.zeros(6, dtype=torch.int64)

    def gate(x):
        return torch.stack([x[:, 0, 0, 0] * 0, *[x[:, 0, 0, 0] * 0 - 1] * 2, 4 * (x[:, 0, 0, 0] - 0.7)], 1)

    def stack(x, slots):
        wrong = (slots == 3) * (x[:, 0, 0, 1] - 0.6)
        return torch.stack([x[:, 0, 0, 0] * 0, *[wrong * 0 - 1] * 2, torch.where(slots == 3, 9 * wrong, wrong - 1)], 1)

    def system(x, _):
        return DefenseOutput(stack(x, gate(x).argmax(1)))

    network, threat = torch.nn.Identity(), Threat("linf", 0.3)
    blind = Surface("end_to_end", lambda x, y: (stack(x, gate(x).argmax(1)),), system, network)
    aimed = Surface("slot_aimed", lambda x, slots: (stack(x, slots), gate(x)), system, network, (1.0, 1.0), aimed=True)
    assert not PGD(steps=20, loss="margin", step_size=0.01)(blind, x, y, threat).success.all()
    assert MultiTargeted(steps=20)(aimed, x, y, threat).success.all()


@pytest.mark.parametrize("settings", [{"classes": 0}, {"target": "next"}, {"steps": 0}, {"loss": "nll"}])
def test_impossible_settings(settings):
    with pytest.raises(UserError):
        MultiTargeted(**settings)
