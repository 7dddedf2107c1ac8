"""Which numbers a strict protocol calls robust, and which checks count in a worst case."""

import numpy as np
import pytest
from evidence_cells import SOUND, N, cell, clean
from recorded import EPS, join

from robustforge.indicators.verdict import ROBUST, UNEVADED, UNRELIABLE, UNTESTED
from robustforge.records.summary import worst_case
from robustforge.reporting.result import make_result
from robustforge.reporting.sweep import summary_of_runs
from robustforge.reporting.tables import markdown_run


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


def test_where_no_image_stands_nothing_speaks_against_the_number():
    masked = cell("pgd", 6, zero_gradient=1.0, loss_gain=0.0)
    for broken in ([masked, cell("square", N, backwards=0)], [cell("fgsm", N, backwards=1)]):
        result = result_of(clean(), *broken)
        (worst,) = result["worst_case"]
        assert (worst["verdict"], worst["accuracy"], worst["violated"]) == (ROBUST, 0, [])
        assert "robust accuracy 0.0" in markdown_run(result)
    pgd = next(c for c in result_of(clean(), masked, cell("square", N, backwards=0))["cells"] if c["attack"] == "pgd")
    assert "white_box_not_weaker_than_black_box" in pgd["violated"], "the attack itself did fail"
    (worst,) = result_of(clean(), masked, cell("square", N - 1, backwards=0))["worst_case"]
    assert worst["verdict"] == UNRELIABLE


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


def test_checks_within_the_budget_count_and_the_others_do_not():
    few = {name: np.asarray(values)[50:80] for name, values in cell("pgd", 70, check="restarts").items()}
    columns = join(clean(), cell("pgd", 60), few, cell("pgd", N, eps=1.0, check="unbounded"))
    worst = worst_case(columns, "d", "linf", EPS)
    assert (worst.n, worst.accuracy) == (N, 30)  # the restarts broke 60 to 69 of the images that they saw
    result = make_result(columns, {"defense": "d"})
    assert [c["eps"] for c in result["worst_case"]] == [pytest.approx(EPS)]
    assert {c["check"] for c in result["checks"]} == {"restarts", "unbounded"}
    assert {c["check"] for c in result["cells"]} == {""}
