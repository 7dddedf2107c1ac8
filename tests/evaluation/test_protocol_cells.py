"""Which cells a protocol asks for, and thresholds on risk."""

import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from robustforge.attacks.bim import BIM
from robustforge.attacks.fgsm import FGSM
from robustforge.attacks.pgd import PGD
from robustforge.defenses.base import classify
from robustforge.evaluation.calibration import risk_threshold
from robustforge.evaluation.checks import checks_of
from robustforge.evaluation.protocol import Protocol, Suite
from robustforge.types import Threat, UserError

SMALL, LARGE = Threat("linf", 0.1), Threat("linf", 0.3)
END = classify(nn.Identity())["end_to_end"]
OWN = {"end_to_end": END, "soft_slot": END, "selector": END}
OTHERS = {"undefended": {"end_to_end": END}, "selector": {"end_to_end": END}}


def outline(protocol, own=OWN, others=OTHERS):
    names = {id(surface): name for name, surface in own.items()}
    assert names
    return [
        (c.system, c.attack.name if c.attack else None, c.threat.eps if c.threat else None)
        for c in protocol.cells("memdef", own, others)
    ]


def protocol(suites, budgets=(SMALL,), **changed):
    return Protocol("p", suites, budgets, **changed)


def test_clean_cells_come_first_then_suites_by_budget():
    cells = outline(protocol({"a": Suite({"x": FGSM()}, ["soft_slot"])}, (SMALL, LARGE)))
    assert cells == [
        ("undefended", None, None), ("selector", None, None), ("memdef", None, None),
        ("undefended", "fgsm", 0.1), ("selector", "fgsm", 0.1), ("memdef", "fgsm", 0.1),
        ("undefended", "fgsm", 0.3), ("selector", "fgsm", 0.3), ("memdef", "fgsm", 0.3),
    ]  # fmt: skip


def test_suites_choose_surfaces_and_rows():
    own = {name: classify(nn.Identity())["end_to_end"] for name in OWN}

    def attacked(suite):
        cells = protocol({"a": suite}).cells("memdef", own, OTHERS)
        return [next(n for n, s in own.items() if s is c.surface) for c in cells if c.system == "memdef" and c.attack]

    assert attacked(Suite({"x": FGSM()})) == ["end_to_end", "soft_slot", "selector"]
    assert attacked(Suite({"x": FGSM()}, ["selector", "end_to_end"])) == ["selector", "end_to_end"]
    alone = outline(protocol({"a": Suite({"x": FGSM()}, ["selector"], others=False)}))
    assert [row for row, attack, _ in alone if attack] == ["memdef"]


def test_a_suite_may_have_budgets_of_its_own():
    free = Threat("l2", 9.0)
    suites = {"a": Suite({"x": FGSM()}, ["soft_slot"], others=False),
              "b": Suite({"y": BIM()}, ["soft_slot"], others=False, budgets=[free], blind=True)}  # fmt: skip
    cells = [c for c in protocol(suites, (SMALL, LARGE)).cells("memdef", OWN, OTHERS) if c.attack]
    assert [(c.attack.name, c.threat, c.blind) for c in cells] == [
        ("fgsm", SMALL, False), ("fgsm", LARGE, False), ("bim", free, True),
    ]  # fmt: skip


def test_a_suite_is_run_at_budgets_of_its_norms_alone():
    suites = {
        "a": Suite({"x": FGSM()}, ["soft_slot"], norms=["linf"]),
        "b": Suite({"y": PGD()}, ["soft_slot"], norms=["l2", "l0"]),
    }
    cells = [c for c in protocol(suites, (SMALL, Threat("l0", 5)), main=BIM()).cells("memdef", OWN, {}) if c.attack]
    assert [(c.attack.name, c.threat.norm) for c in cells] == [
        ("fgsm", "linf"), ("bim", "linf"), ("pgd", "l0"), ("bim", "l0"),
    ]  # fmt: skip
    with pytest.raises(UserError, match="each linf, l2, l1, l0 or l0_pixels"):
        Suite({}, norms=["l2", "l3"])


@pytest.mark.parametrize("name", ["standard", "adaptive", "full"])
@pytest.mark.parametrize("norm", ["linf", "l2", "l1", "l0", "l0_pixels"])
def test_no_protocol_asks_an_attack_for_another_norm(name, norm):
    from robustforge.config.named import protocol as named

    threat = Threat(norm, 1.0)
    cells = [c for c in named(name, threat).cells("d", {"end_to_end": END}, {}) if c.attack is not None and not c.check]
    for cell in cells:
        cell.attack.fits((1, 8, 8), 10, cell.threat)
    found = {cell.attack.name for cell in cells}
    assert ("carlini_wagner" in found) == (norm == "l2" and name == "full")
    if name == "standard":
        own = {"linf": {"auto"}, "l2": {"auto", "ddn"}, "l1": {"auto", "fmn"}}.get(norm, {"sigma_zero"})
        assert found == own | {"pgd"}


def test_the_main_attack_joins_or_replaces_its_namesake():
    suite = Suite({"x": FGSM(), "y": PGD(steps=5)}, ["soft_slot"], others=False)
    joined = protocol({"a": suite}, main=BIM(steps=3)).cells("memdef", OWN, {})
    assert [c.attack for c in joined if c.attack] == [FGSM(), PGD(steps=5), BIM(steps=3)]
    replaced = protocol({"a": suite}, main=PGD(steps=99)).cells("memdef", OWN, {})
    assert [c.attack for c in replaced if c.attack] == [FGSM(), PGD(steps=99)]


def test_no_cell_is_asked_for_twice():
    suites = {"a": Suite({"x": FGSM()}, ["soft_slot"]), "b": Suite({"y": BIM()}, ["soft_slot", "end_to_end"])}
    cells = protocol(suites, main=PGD()).cells("memdef", OWN, OTHERS)
    asked = [(c.system, c.surface, c.attack, c.threat) for c in cells]
    assert all(cell not in asked[:number] for number, cell in enumerate(asked))
    assert ("undefended", END, PGD(), SMALL) in asked


def test_one_name_with_two_settings_is_refused():
    one, two = Suite({"x": PGD(steps=5)}, ["soft_slot"]), Suite({"y": PGD(steps=6)}, ["end_to_end"])
    with pytest.raises(UserError, match=r"'pgd' different settings in a\.x and b\.y: set b\.attacks\.y\.name"):
        protocol({"a": one, "b": two})
    with pytest.raises(UserError, match=r"in a\.x and a\.y"):
        protocol({"a": Suite({"x": PGD(steps=5), "y": PGD(steps=6)})})
    protocol({"a": one, "b": Suite({"y": PGD(steps=5)})})  # the same attack twice is one attack
    protocol({"a": one, "b": two}, main=PGD(steps=7))  # which replaces both


def test_an_attack_must_not_be_called_what_tables_call_the_minimum():
    with pytest.raises(UserError, match=r"set a\.attacks\.x\.name"):
        protocol({"a": Suite({"x": PGD(name="worst_case")})})
    with pytest.raises(UserError, match=r"set attack\.name"):
        protocol({}, main=PGD(name="worst_case"))


def test_a_transfer_is_offered_to_defenses_that_name_none():
    source, target = (classify(nn.Linear(1, 1))["end_to_end"] for _ in range(2))
    suite = {"a": Suite({"x": FGSM()}, others=False)}

    def surfaces(own, others, **changed):
        cells = protocol(suite, transfer=True, **changed).cells("d", own, others)
        return {c.surface.name: c.surface for c in cells if c.attack}

    found = surfaces({"end_to_end": target}, {"undefended": {"end_to_end": source}})
    assert set(found) == {"end_to_end", "transfer"}
    assert (found["transfer"].attacker_logits, found["transfer"].system) == (source.attacker_logits, target.system)
    assert set(found["transfer"].modules.parameters()) == {
        *source.modules.parameters(), *target.modules.parameters()
    }  # fmt: skip
    assert set(surfaces({"end_to_end": target}, {})) == {"end_to_end"}
    named = dataclasses.replace(target, name="transfer")
    assert (
        surfaces({"transfer": named, "end_to_end": target}, {"undefended": {"end_to_end": source}})["transfer"] is named
    )


def test_every_rate_has_its_cells():
    suite = {"a": Suite({"x": FGSM()}, ["soft_slot"])}
    cells = protocol(suite, false_positive_rates=[0.01, 0.05]).cells("memdef", OWN, OTHERS)
    assert [(c.system, c.rate) for c in cells if c.attack is None] == [
        (row, rate) for rate in (0.01, 0.05) for row in ("undefended", "selector", "memdef")
    ]
    assert [c.rate for c in cells if c.attack and c.system == "memdef"] == [0.01, 0.05]
    assert protocol(suite).rates == (None,)
    assert protocol(suite, false_positive_rate=0.1).rates == (0.1,)
    assert protocol(suite, false_positive_rate=0.05, false_positive_rates=[0.01, 0.05]).rates == (0.05, 0.01)
    assert protocol(suite, false_positive_rates=[None, 0.05]).rates == (None, 0.05)


def test_checks_are_of_the_defense_s_own_iterated_attacks():
    own = {name: dataclasses.replace(END, name=name) for name in ("end_to_end", "transfer")}
    suite = {"a": Suite({"x": FGSM(), "y": PGD(steps=5), "z": BIM()})}
    cells = protocol(suite, (SMALL, LARGE), checks=True).cells("memdef", own, OTHERS)
    found = [(c.attack.name, c.check, c.threat.eps) for c in cells if c.check]
    assert {(c.system, c.surface.name) for c in cells if c.check} == {("memdef", "end_to_end")}
    assert sorted(found) == sorted([
        *((name, check, eps) for name in ("pgd", "bim") for check, eps in (("identity", 0.0), ("unbounded", 1.0))),
        *(("pgd", check, eps) for check in ("restarts", "steps") for eps in (0.1, 0.3)),
        *(("bim", "steps", eps) for eps in (0.1, 0.3)),
    ])  # fmt: skip
    assert not [c for c in protocol(suite).cells("memdef", own, OTHERS) if c.check]


def test_an_l2_budget_without_bound_is_twenty_times_the_budget():
    found = {check: threat.eps for check, _, threat in checks_of(PGD(), Threat("l2", 1.5))}
    assert found == {"identity": 0, "unbounded": 30, "restarts": 1.5, "steps": 1.5}
    assert checks_of(FGSM(), SMALL) == []
    assert {check: attack.restarts for check, attack, _ in checks_of(PGD(restarts=8), SMALL)}["restarts"] == 16


def test_a_surface_that_is_not_there():
    with pytest.raises(
        UserError, match=r"suite 'b', attacks the surface encoder, victim, which memdef lacks: it has end_to"
    ):
        outline(protocol({"b": Suite({"x": FGSM()}, ["encoder", "soft_slot", "victim"])}))


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"n_test": 0}, "at least 1"),
        ({"false_positive_rate": 1.0}, r"\[0, 1\)"),
        ({"false_positive_rate": -0.1}, "give a "),
        ({"false_positive_rates": [0.01, 1.5]}, "give a "),
        ({"checks_n": 0}, "at least 1"),
        ({"false_positive_rate": 0.1, "threshold": 1.0}, "one of them"),
    ],
)
def test_impossible_values(changed, says):
    with pytest.raises(UserError, match=says):
        protocol({}, **changed)


@settings(max_examples=200, deadline=None)
@given(
    risks=st.lists(st.floats(-5, 5, width=32), min_size=1, max_size=60), rate=st.floats(0, 0.999),
    steps=st.integers(0, 59),
)  # fmt: skip
def test_threshold_is_the_smallest_that_keeps_the_rate(risks, rate, steps):
    risk, count = torch.tensor(risks), len(risks)
    exact = min(steps, count - 1) / count  # a rate that the data can meet exactly
    for wanted in (rate, exact):
        threshold = risk_threshold(risk, wanted)
        assert threshold in risks
        rejected = int((risk > threshold).sum())
        allowed = round(wanted * count) if wanted == exact else math.floor(wanted * count)
        assert rejected <= allowed
        smaller = [value for value in risks if value < threshold]
        if smaller:
            assert int((risk > max(smaller)).sum()) > allowed


def test_threshold_by_hand():
    risk = torch.tensor([0.3, 0.1, 0.5, 0.2, 0.4])
    for rate, threshold in ((0.0, 0.5), (0.19, 0.5), (0.2, 0.4), (0.4, 0.3), (0.99, 0.1)):
        assert risk_threshold(risk, rate) == pytest.approx(threshold)
    hundred = torch.arange(100.0)
    assert risk_threshold(hundred, 0.29) == 70  # 0.29 * 100 is 28.999999999999996 in floating point
    with pytest.raises(ValueError, match=r"raise dataset\.held_out"):
        risk_threshold(torch.zeros(0), 0.1)
