"""Which cells a protocol asks for, and thresholds on risk."""

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
        ({"false_positive_rate": -0.1}, "share"),
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
