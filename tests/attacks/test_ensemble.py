"""The worst case over attacks: no weaker than any, sums of passes, honest traces."""

from dataclasses import replace

import pytest
import torch

from robustforge.attacks.apgd import APGD
from robustforge.attacks.core.restarts import room_for
from robustforge.attacks.ensemble import WorstCase
from robustforge.attacks.fgsm import FGSM
from robustforge.attacks.none import NoAttack
from robustforge.attacks.pgd import PGD
from robustforge.attacks.square import Square
from robustforge.types import Threat, UserError

PARTS = {
    "square": Square(n_queries=40), "fgsm": FGSM(precision="float32"), "apgd": APGD(steps=8, precision="float32"),
    "pgd": PGD(steps=8, loss="margin", precision="float32"),
}  # fmt: skip
THREAT = Threat("linf", 0.06)


def test_no_weaker_than_any_part_for_any_image(victim, images):
    x, y = images
    whole = WorstCase("worst", PARTS)(victim, x, y, THREAT, seed=2)
    alone = {key: attack(victim, x, y, THREAT, seed=2).success for key, attack in PARTS.items()}
    assert torch.equal(whole.success, torch.stack(list(alone.values())).any(0))
    assert whole.success.sum() > max(success.sum() for success in list(alone.values())[:2])
    assert not whole.success.all()


def test_each_runs_on_what_still_stands_and_is_addressed_by_sample(victim, images):
    x, y = images
    index = torch.arange(500, 564)
    whole = WorstCase("worst", PARTS)(victim, x, y, THREAT, index=index, seed=2)
    rows, x_adv = torch.arange(64), None
    forwards, backwards = torch.zeros(64, dtype=torch.int64), torch.zeros(64, dtype=torch.int64)
    for attack in PARTS.values():
        part = attack(victim, x[rows], y[rows], THREAT, index=index[rows], seed=2)
        forwards[rows] += part.forwards
        backwards[rows] += part.backwards
        x_adv = part.x_adv if x_adv is None else x_adv
        x_adv[rows[part.success]] = part.x_adv[part.success]
        rows = rows[~part.success]
    assert torch.equal(whole.forwards, forwards)
    assert torch.equal(whole.backwards, backwards)
    assert torch.equal(whole.x_adv, x_adv)
    assert torch.equal(rows, (~whole.success).nonzero().flatten())


def test_the_trace_is_of_the_first_gradients_taken(victim, images):
    x, y = images
    trace = WorstCase("worst", PARTS)(victim, x, y, THREAT).trace
    square = PARTS["square"](victim, x, y, THREAT)
    fgsm = PARTS["fgsm"](
        victim, x[~square.success], y[~square.success], THREAT, index=(~square.success).nonzero().flatten()
    )
    for name in ("zero_gradient", "loss_gain", "best_at"):
        assert getattr(trace, name)[square.success].isnan().all()
        assert torch.equal(getattr(trace, name)[~square.success], getattr(fgsm.trace, name))
    assert WorstCase("w", {"a": NoAttack(), "b": Square(n_queries=2)})(victim, x, y, THREAT).trace is None


def test_one_attack_is_itself_and_worst_cases_nest(victim, images):
    x, y = images[0][:16], images[1][:16]
    one, alone = WorstCase("one", {"fgsm": FGSM()}), FGSM()(victim, x, y, THREAT)
    for attack in (one, WorstCase("nested", {"one": one, "none": NoAttack()})):
        result = attack(victim, x, y, THREAT)
        assert torch.equal(result.x_adv, alone.x_adv)
        assert torch.equal(result.success, alone.success)
    assert len(one(victim, x[:0], y[:0], THREAT).x_adv) == 0


def test_a_detector_counts_in_every_part(trained, images, surface_of):
    from robustforge.attacks.core.surface import Surface
    from robustforge.types import DefenseOutput

    x, y = images[0][:24], images[1][:24]
    surface = Surface(
        "s", lambda x, _: (trained(x),), lambda x, _: DefenseOutput(trained(x), torch.ones(len(x))), trained
    )
    assert not WorstCase("worst", PARTS)(surface, x, y, THREAT, threshold=0.5).success.any()
    assert WorstCase("worst", PARTS)(surface, x, y, THREAT, threshold=1.5).success.any()


def test_refuses_what_is_nothing_or_no_image(victim, images):
    with pytest.raises(UserError, match="has no attacks"):
        WorstCase("worst", {})
    with pytest.raises(UserError, match="must lie in"):
        WorstCase("worst", PARTS)(victim, images[0] * 255, images[1], THREAT)


def test_configs_compose_and_build(compose):
    from robustforge.config.instantiate import build

    auto = build(compose("attack=auto", "attack.attacks.square.n_queries=7").attack)
    assert list(auto.attacks) == ["apgd_ce", "apgd_t", "fab_t", "square"]
    assert [getattr(a, "steps", None) for a in auto.attacks.values()] == [100, 100, 100, None]
    assert auto.attacks["square"].n_queries == 7
    assert auto.attacks["apgd_t"].n_target_classes == auto.attacks["fab_t"].n_target_classes == 9
    assert auto.attacks["apgd_t"].loss == "dlr"
    quick = build(compose("attack=auto_quick").attack)
    assert [a.give_up for a in quick.attacks.values()] == [False, True, True, True]
    assert not any(a.give_up for a in auto.attacks.values())
    mixed = build(compose("attack=worst_case", "+attack@attack.attacks.square=square").attack)
    assert list(mixed.attacks) == ["apgd_ce", "cw_pgd", "square"]


def test_few_images_run_more_side_by_side_where_there_is_room(victim, images):
    """As in an ensemble that has broken most of a batch: the same answers in fewer, fuller passes."""
    x, y = images[0][:4], images[1][:4]
    sizes = []

    def attacker_logits(given, label):
        sizes.append(len(given))
        return victim.attacker_logits(given, label)

    surface = replace(victim, attacker_logits=attacker_logits)
    attack = APGD(n_target_classes=6, loss="dlr", steps=4, precision="float32")
    alone, passes = attack(surface, x, y, Threat("linf", 0.01)), len(sizes)
    sizes.clear()
    with room_for(24):
        together = attack(surface, x, y, Threat("linf", 0.01))
    assert len(sizes) < passes / 2
    assert max(sizes) <= 24
    torch.testing.assert_close(together.x_adv, alone.x_adv)
    assert torch.equal(together.success, alone.success)
