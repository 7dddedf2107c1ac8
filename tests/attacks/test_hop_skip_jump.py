"""HopSkipJump: decisions only, toward the exact boundary, and what every attack owes."""

import pytest
import torch
from attack_cases import check_independence, check_properties, distance, linear_case

from robustforge.attacks.core.surface import Surface
from robustforge.attacks.hop_skip_jump import HopSkipJump
from robustforge.types import DefenseOutput, Threat, UserError

FREE = {"l2": Threat("l2", 28.0), "linf": Threat("linf", 1.0)}


def test_what_every_attack_owes():
    check_properties(HopSkipJump(steps=1, probes=6, init_tries=6))


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_walks_to_a_linear_classifiers_boundary(norm):
    surface, x, y, exact = linear_case(classes=2)
    start, few, many = (
        HopSkipJump(steps=steps)(surface, x, y, FREE[norm]) for steps in (1, 5, 30)
    )  # fmt: skip
    assert many.success.all()
    means = [(distance(result.x_adv, x, norm) / exact[norm]).mean() for result in (start, few, many)]
    assert means[0] > means[1] > means[2]
    assert 0.999 < means[2] < 1.15


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_asks_for_nothing_but_decisions(victim, images, norm):
    x, y = images[0][:6], images[1][:6]

    def blind(inputs, labels):
        raise AssertionError("a decision-based attack looked at the views")

    def decision(inputs, labels):
        answer = victim.system(inputs, labels).logits.argmax(1)
        return DefenseOutput(torch.nn.functional.one_hot(answer, 10).float())

    surface = Surface("decisions", blind, decision, victim.modules)
    full = HopSkipJump(steps=3, probes=40)(victim, x, y, FREE[norm])
    bare = HopSkipJump(steps=3, probes=40)(surface, x, y, FREE[norm])
    assert torch.equal(full.x_adv, bare.x_adv)
    assert bare.success.all()
    assert bare.backwards.sum() == 0
    assert (bare.forwards > 100).all()


def test_a_rejection_is_a_decision_too(victim, images):
    x, y = images[0][:6], images[1][:6]

    def guarded(inputs, labels):
        answer = victim.system(inputs, labels)
        return DefenseOutput(answer.logits, risk=inputs.flatten(1).mean(1))

    surface = Surface("guarded", victim.attacker_logits, guarded, victim.modules)
    result = HopSkipJump(steps=2, probes=30)(surface, x, y, FREE["l2"], threshold=0.35)
    assert result.success.any()
    assert (result.x_adv.flatten(1).mean(1)[result.success] <= 0.35).all()


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_batch_size_and_order_do_not_matter(victim, images, norm):
    attack = HopSkipJump(steps=2, probes=60)
    check_independence(attack, victim, images[0][:7], images[1][:7], FREE[norm], tolerance=0.02)


def test_seed_and_index_move_the_probes(victim, images):
    x, y = images[0][:4], images[1][:4]
    attack = HopSkipJump(steps=1, probes=20)
    base = attack(victim, x, y, FREE["l2"])
    assert not torch.equal(attack(victim, x, y, FREE["l2"], seed=1).x_adv, base.x_adv)
    assert not torch.equal(attack(victim, x, y, FREE["l2"], index=torch.arange(4, 8)).x_adv, base.x_adv)


@pytest.mark.parametrize("settings", [{"steps": 0}, {"probes": 0}, {"init_tries": 0}, {"gamma": 0.0}, {"norm": "l1"}])
def test_impossible_settings_are_refused(settings):
    with pytest.raises(UserError):
        HopSkipJump(**settings)
