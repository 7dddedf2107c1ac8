"""Each indicator on records made by hand: where it must speak, and where noise must not make it."""

import numpy as np
import pytest
from evidence_cells import SOUND, N, cell, clean
from recorded import BIG, EPS, join

from robustforge.attacks.pgd import PGD
from robustforge.evaluation import checks
from robustforge.indicators.evidence import gather, kind_of
from robustforge.indicators.judging import judge
from robustforge.indicators.rules import MEANING
from robustforge.records.table import WITHIN_BUDGET, read_records
from robustforge.types import Threat


def violated(*cells, attack="pgd", eps=EPS, surface="end_to_end"):
    found = judge(gather(read_records(join(*cells))))
    (key,) = [k for k in found if (k.attack, k.surface) == (attack, surface) and abs(k.eps - eps) < 1e-6]
    return {one.name: one for one in found[key] if one.violated}


def test_a_sound_attack_is_judged_by_every_indicator_and_violates_none():
    found = judge(gather(read_records(join(*SOUND))))
    (key,) = [k for k in found if (k.attack, k.surface, k.eps) == ("pgd", "end_to_end", round(BIG, 7))]
    names = {one.name for one in found[key]}
    (small,) = [k for k in found if (k.attack, k.surface, k.eps) == ("pgd", "end_to_end", round(EPS, 7))]
    names |= {one.name for one in found[small]}
    assert names == set(MEANING)
    assert not [one for indicators in found.values() for one in indicators if one.violated]


# what is changed about the sound evidence -> the one indicator that must speak
TOO_MANY = np.where(np.arange(N) < 90, 1.0, 0.0)
CASES = {
    "identity_at_zero": [clean(), cell("pgd", 60), cell("pgd", 12, eps=0.0, check="identity", backwards=0)],
    "unbounded_breaks": [clean(), cell("pgd", 60), cell("pgd", 88, eps=1.0, check="unbounded")],
    "monotone_in_steps": [clean(), cell("pgd", 60), cell("pgd", 50, check="steps")],
    "iterative_not_weaker_than_one_step": [clean(), cell("pgd", 60), cell("fgsm", 70, backwards=1)],
    "white_box_not_weaker_than_black_box": [clean(), cell("pgd", 60), cell("square", 70, backwards=0)],
    "noise_weaker_than_gradients": [clean(), cell("pgd", 60), cell("uniform_noise", 70, backwards=0)],
    "loss_moved": [clean(), cell("pgd", 60, loss_gain=np.where(np.arange(N) < 85, 1.0, 0.0))],
    "zero_gradients": [clean(), cell("pgd", 60, zero_gradient=np.where(np.arange(N) < 15, 1.0, 0.2))],
    "best_step_not_last": [clean(), cell("pgd", 60, best_at=np.where(np.arange(N) < 98, 1.0, 0.3))],
    "restarts_agree": [clean(), cell("pgd", 60), cell("pgd", 72, check="restarts")],
}


@pytest.mark.parametrize("name", CASES)
def test_each_failure_has_its_name(name):
    assert set(violated(*CASES[name])) == {name}


def test_more_at_a_smaller_budget():
    assert set(violated(clean(), cell("pgd", 60), cell("pgd", 40, eps=BIG), eps=BIG)) == {"monotone_in_eps"}
    assert not violated(clean(), cell("pgd", 60), cell("pgd", 40, eps=BIG))  # the smaller budget's number stands


def test_a_transfer_that_breaks_more():
    found = violated(clean(), cell("pgd", 30), cell("pgd", 60, surface="transfer"))
    assert set(found) == {"white_box_not_weaker_than_black_box"}
    assert found["white_box_not_weaker_than_black_box"].by.startswith("pgd on transfer")


RIVALS = {
    "square": ("square", {"backwards": 0}),
    "fgsm": ("fgsm", {"backwards": 1}),
    "restarts": ("pgd", {"check": "restarts"}),
}


@pytest.mark.parametrize("rival", RIVALS)
def test_images_that_a_third_attack_broke_speak_against_nobody(rival):
    """protocol.columns=worst: PGD breaks 30 and APGD 60; what comes later leaves those alone."""
    attack, changed = RIVALS[rival]

    def found(skipped, broken):
        later = cell(attack, 0, **changed) | {"skipped": skipped, "success": broken}
        whole = {"skipped": np.zeros(N, dtype=bool)}
        return set(violated(*(one | whole for one in (clean(), cell("pgd", 30), cell("apgd", 60))), later))

    first, none = np.arange(N) < 60, np.zeros(N, dtype=bool)
    assert found(none, first), "it breaks 60 itself"
    assert not found(first, none), "it was not asked"
    assert found(first, (np.arange(N) >= 60) & (np.arange(N) < 75)), "it breaks what the others left"


def test_noise_violates_nothing():
    """Differences that chance explains: five images of a hundred one way, three the other; few zero gradients."""
    rng = np.random.default_rng(0)
    mine, theirs = np.arange(N) < 60, np.arange(N) < 60
    flipped = rng.choice(N, 8, replace=False)
    theirs[flipped[:5]], mine[flipped[:5]] = True, False
    theirs[flipped[5:]], mine[flipped[5:]] = False, True
    parts = []
    for attack, broken, backwards in (("pgd", mine, 20), ("fgsm", theirs, 1), ("square", theirs, 0)):
        one = cell(attack, 0, backwards=backwards, zero_gradient=np.where(np.arange(N) < 7, 1.0, 0.0))
        one["success"], one["prediction"] = broken, np.where(broken, (one["label"] + 1) % 10, one["label"])
        parts.append(one)
    assert not violated(clean(), *parts)


def test_more_steps_acquit_a_late_best_step():
    late = cell("pgd", 60, best_at=1.0)
    assert set(violated(clean(), late)) == {"best_step_not_last"}
    assert not violated(clean(), late, cell("pgd", 61, check="steps"))
    assert set(violated(clean(), late, cell("pgd", 75, check="steps"))) == {"best_step_not_last"}


def test_kinds_come_from_names_and_passes():
    kinds = {}
    for key, part in read_records(join(*SOUND)).cells.items():
        kinds.setdefault(kind_of(key, part), set()).add((key.attack, key.surface))
    assert {"clean", "noise", "one_step", "iterative", "query", "transfer"} <= set(kinds)
    assert ("pgd", "transfer") in kinds["transfer"]
    assert ("square", "end_to_end") in kinds["query"]


def test_names_are_the_same_on_both_sides():
    made = {
        check: (attack, threat) for check, attack, threat in checks.checks_of(PGD(step_size=0.01), Threat("linf", 0.1))
    }
    assert set(made) == {"identity", "unbounded", *WITHIN_BUDGET}
    assert made["identity"] == (PGD(step_size=0.01), Threat("linf", 0.0))
    assert made["unbounded"] == (PGD(), Threat("linf", 1.0))
    assert made["restarts"] == (PGD(step_size=0.01, restarts=5), Threat("linf", 0.1))
    assert made["steps"] == (PGD(step_size=0.01, steps=80), Threat("linf", 0.1))
