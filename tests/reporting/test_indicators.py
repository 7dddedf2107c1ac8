"""Each indicator on records made by hand: where it must speak, and where noise must not make it."""

import numpy as np
import pytest

from robustforge.evaluation import checks
from robustforge.indicators.evidence import gather, kind_of
from robustforge.indicators.rules import MEANING, judge
from robustforge.indicators.verdict import ROBUST, UNEVADED, UNRELIABLE, UNTESTED
from robustforge.records import table as record_table
from robustforge.records.records import Outcomes, paired_difference, read_records, worst_case
from robustforge.records.statistics import mcnemar
from robustforge.reporting.result import make_result
from robustforge.reporting.tables import markdown_run, summary_of_runs

from .conftest import BIG, EPS, join, make_cell

N = 100


def cell(attack, broken, *, eps=EPS, surface="end_to_end", check="", backwards=20, system="d", **trace):
    """One cell of which the first ``broken`` images are broken; the trace columns are constants or arrays."""
    made = make_cell(system, attack, surface, eps, np.arange(N) >= broken, norm="none" if attack == "clean" else "linf")
    full = {"zero_gradient": 0.0, "loss_gain": 1.0, "best_at": 0.5} | trace
    none = attack == "clean" or backwards == 0
    made |= {name: np.full(N, np.nan) if none else np.broadcast_to(value, N) for name, value in full.items()}
    return made | {"backwards": np.full(N, backwards), "check": [check] * N}


def clean(broken=5, **changed):
    return cell("clean", broken, surface="none", eps=0.0, backwards=0, **changed)


SOUND = (
    clean(), cell("noise", 5, backwards=0), cell("fgsm", 40, backwards=1), cell("pgd", 60), cell("square", 50, backwards=0),
    cell("pgd", 60, surface="transfer"), cell("pgd", 5, eps=0.0, check="identity", backwards=0),
    cell("pgd", N, eps=1.0, check="unbounded"), cell("pgd", 61, check="restarts"), cell("pgd", 61, check="steps"),
    cell("pgd", 90, eps=BIG),
)  # fmt: skip


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


# ---- verdicts --------------------------------------------------------------------------------------------------------


def result_of(*cells, strict=True):
    return make_result(join(*cells), {"defense": "d", "strict": strict, "name": "run", "norm": "linf", "eps": EPS})


def test_a_strict_protocol_calls_a_sound_worst_case_robust():
    result = result_of(*SOUND[:-1])
    (worst,) = result["worst_case"]
    assert (worst["verdict"], worst["accuracy"], worst["violated"]) == (ROBUST, 39, [])  # the checks broke image 60
    assert "d, worst case L∞ 9/255: robust accuracy 39.0" in markdown_run(result)


def test_a_strict_protocol_refuses_the_word():
    result = result_of(clean(), cell("pgd", 6, zero_gradient=1.0, loss_gain=0.0))
    (worst,) = result["worst_case"]
    assert worst["verdict"] == UNRELIABLE
    assert set(worst["violated"]) == {"loss_moved", "zero_gradients"}
    pgd = next(c for c in result["cells"] if c["attack"] == "pgd")
    assert (pgd["verdict"], set(pgd["violated"])) == (UNRELIABLE, {"loss_moved", "zero_gradients"})
    text = markdown_run(result)
    assert text.count("[a,b]") == 2
    assert "[b] zero gradients: violated, more than 5 %" in text
    assert "no robust accuracy is stated" in text
    assert "robust accuracy 94" not in text
    assert "ok, but unreliable: loss moved, zero gradients" in summary_of_runs([([], result)]).markdown()
    lenient = result_of(clean(), cell("pgd", 6, zero_gradient=1.0, loss_gain=0.0), strict=False)
    assert "verdict" not in lenient["worst_case"][0]
    assert "[a,b]" in markdown_run(lenient)  # shown all the same


def test_a_sound_attack_makes_up_for_a_failed_one():
    masked = cell("pgd", 6, zero_gradient=1.0, loss_gain=0.0)
    (worst,) = result_of(clean(), masked, cell("margin", 60))["worst_case"]
    assert (worst["verdict"], worst["accuracy"]) == (ROBUST, 40)
    (worst,) = result_of(clean(), masked, cell("square", 60, backwards=0))["worst_case"]
    assert "white_box_not_weaker_than_black_box" in worst["violated"]


def test_without_an_iterated_attack_nothing_is_robust():
    result = result_of(clean(), cell("fgsm", 20, backwards=1))
    assert result["worst_case"][0]["violated"] == [UNTESTED]
    assert "no iterated white-box attack" in markdown_run(result)


def test_what_may_reject_is_robust_only_where_an_attack_tried_to_be_accepted():
    def with_detector(columns, evades=False):
        return columns | {"threshold": np.full(N, 0.5), "evades": np.full(N, evades)}

    seen = [with_detector(clean()), with_detector(cell("pgd", 60))]
    (worst,) = result_of(*seen)["worst_case"]
    assert (worst["verdict"], worst["violated"]) == (UNRELIABLE, [UNEVADED])
    assert "no iterated attack on the detector" in markdown_run(result_of(*seen))
    (worst,) = result_of(*seen, with_detector(cell("detector_aware", 61), evades=True))["worst_case"]
    assert worst["verdict"] == ROBUST
    # an attack without gradients does not stand for one with them
    query = with_detector(cell("square", 60, backwards=0), evades=True)
    assert result_of(*seen, query)["worst_case"][0]["violated"] == [UNEVADED]


# ---- checks in worst cases -------------------------------------------------------------------------------------------


def test_checks_within_the_budget_count_and_the_others_do_not():
    few = {name: np.asarray(values)[50:80] for name, values in cell("pgd", 70, check="restarts").items()}
    columns = join(clean(), cell("pgd", 60), few, cell("pgd", N, eps=1.0, check="unbounded"))
    worst = worst_case(columns, "d", "linf", EPS)
    assert (worst.n, worst.accuracy) == (N, 30)  # the restarts broke 60 to 69 of the images that they saw
    result = make_result(columns, {"defense": "d"})
    assert [c["eps"] for c in result["worst_case"]] == [pytest.approx(EPS)]
    assert {c["check"] for c in result["checks"]} == {"restarts", "unbounded"}
    assert {c["check"] for c in result["cells"]} == {""}


def test_names_are_the_same_on_both_sides():
    from robustforge.attacks.pgd import PGD
    from robustforge.types import Threat

    made = {
        check: (attack, threat) for check, attack, threat in checks.checks_of(PGD(step_size=0.01), Threat("linf", 0.1))
    }
    assert set(made) == {"identity", "unbounded", *record_table.WITHIN_BUDGET}
    assert made["identity"] == (PGD(step_size=0.01), Threat("linf", 0.0))
    assert made["unbounded"] == (PGD(), Threat("linf", 1.0))
    assert made["restarts"] == (PGD(step_size=0.01, restarts=5), Threat("linf", 0.1))
    assert made["steps"] == (PGD(step_size=0.01, steps=80), Threat("linf", 0.1))
    from robustforge.evaluation.records import SECONDS

    assert SECONDS == record_table.SECONDS


# ---- statistics ------------------------------------------------------------------------------------------------------


def test_mcnemar_by_hand():
    assert mcnemar(3, 0) == pytest.approx(1 / 8)
    assert mcnemar(2, 1) == pytest.approx((3 + 1) / 8)
    assert mcnemar(8, 1) == pytest.approx((9 + 1) / 512)
    assert mcnemar(0, 5) == mcnemar(0, 0) == 1
    assert 0 < mcnemar(4000, 3000) < 1e-30


def test_the_bootstrap_against_the_normal_approximation():
    """2,000 samples: 300 only the first holds, 100 only the second; the difference has a known variance."""
    n, first, second = 2000, 300, 100
    index = np.random.default_rng(1).permutation(n)
    order = np.argsort(index)
    a = Outcomes(index[order], (np.arange(n) < first)[order])
    b = Outcomes(index[order], ((np.arange(n) >= first) & (np.arange(n) < first + second))[order])
    found = paired_difference(a, b)
    mean = (first - second) / n
    error = np.sqrt(((first + second) / n - mean**2) / n)
    assert found.points == pytest.approx(100 * mean)
    assert (found.low, found.high) == pytest.approx(
        (100 * (mean - 1.96 * error), 100 * (mean + 1.96 * error)), abs=0.12
    )
    assert paired_difference(a, b) == found  # seeded
    assert paired_difference(b, a).points == -found.points
