"""Every figure of abstention against values worked out by hand, or against scikit-learn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score, roc_curve

from robustforge.records.abstention import abstention, aurc, auroc, risk_coverage, roc, tpr_at_fpr, triple
from robustforge.records.statistics import wilson
from robustforge.records.table import read_records

SCORES = st.lists(st.integers(0, 6).map(float), min_size=1, max_size=40).map(np.array)


def test_risk_coverage_by_hand():
    risk, wrong = np.array([0.4, 0.1, 0.2, 0.3]), np.array([True, False, True, False])
    coverage, error = risk_coverage(risk, wrong)
    assert coverage.tolist() == [0.25, 0.5, 0.75, 1.0]
    assert error == pytest.approx([0, 1 / 2, 1 / 3, 1 / 2])  # by risk: right, wrong, right, wrong
    assert aurc(risk, wrong) == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 2) / 4)


def test_equal_risks_are_the_mean_over_all_orders():
    risk, wrong = np.array([0.0, 1.0, 1.0]), np.array([False, True, False])
    # orders: (right, wrong, right) and (right, right, wrong)
    assert risk_coverage(risk, wrong)[1] == pytest.approx([0, (1 / 2 + 0) / 2, 1 / 3])
    assert aurc(np.zeros(5), np.array([1, 0, 0, 0, 1], dtype=bool)) == pytest.approx(0.4)


@settings(max_examples=100, deadline=None)
@given(SCORES, st.randoms(use_true_random=False))
def test_a_perfect_risk_is_best_and_its_reverse_worst(risk, random):
    wrong = np.array([random.random() < 0.4 for _ in risk])
    assert aurc(wrong.astype(float), wrong) - 1e-12 <= aurc(risk, wrong) <= aurc(1 - wrong.astype(float), wrong) + 1e-12


@settings(max_examples=100, deadline=None)
@given(SCORES, SCORES)
def test_auroc_and_roc_are_scikit_learn_s(negative, positive):
    labels = np.concatenate([np.zeros(len(negative)), np.ones(len(positive))])
    scores = np.concatenate([negative, positive])
    assert auroc(negative, positive) == pytest.approx(roc_auc_score(labels, scores))
    x, y = roc(negative, positive)
    assert np.trapezoid(y, x) == pytest.approx(auroc(negative, positive))
    expected = roc_curve(labels, scores, drop_intermediate=False)
    points = set(zip(x.round(9), y.round(9), strict=True))
    assert set(zip(expected[0].round(9), expected[1].round(9), strict=True)) <= points


def test_tpr_at_fpr_by_hand():
    clean, attacked = np.arange(100.0), np.array([50.0, 94.5, 95.0, 97.0, 99.0, 120.0])
    assert tpr_at_fpr(clean, attacked, 0.05) == pytest.approx(5 / 6)  # above 94: all but 50
    assert tpr_at_fpr(clean, attacked, 0.05) != tpr_at_fpr(clean, attacked, 0.01)
    assert tpr_at_fpr(clean, attacked, 0.01) == pytest.approx(2 / 6)  # above 98
    assert tpr_at_fpr(clean, attacked, 0.0) == pytest.approx(1 / 6)  # above 99


@settings(max_examples=100, deadline=None)
@given(SCORES, SCORES, st.floats(0, 0.99))
def test_tpr_at_fpr_keeps_the_rate_and_is_the_best_that_does(negative, positive, rate):
    found = tpr_at_fpr(negative, positive, rate)
    thresholds = np.unique(negative)
    allowed = [t for t in thresholds if (negative > t).sum() <= rate * len(negative) + 1e-9]
    assert found == pytest.approx(max((positive > t).mean() for t in allowed))


def test_triple_by_hand(detector):
    parts = {key.attack: part for key, part in read_records(detector).cells.items()}
    clean, attacked = triple(parts["clean"]), triple(parts["pgd"])
    assert {name: one["percent"] for name, one in clean.items()} == {
        "accepted_correct": pytest.approx(60), "accepted_wrong": pytest.approx(20), "rejected": pytest.approx(20),
    }  # fmt: skip
    assert {name: round(one["percent"]) for name, one in attacked.items()} == {
        "accepted_correct": 20, "accepted_wrong": 40, "rejected": 40,
    }  # fmt: skip
    assert clean["accepted_correct"]["interval"] == wilson(3, 5)


def test_abstention_of_a_cell(detector):
    parts = {key.attack: part for key, part in read_records(detector).cells.items()}
    found = abstention(parts["pgd"], parts["clean"])
    # changed: .9 .35 .05 .8 against .1 .2 .4 .6 .3: wins 5 + 3 + 0 + 5 of 20
    assert found["auroc"] == pytest.approx(13 / 20)
    assert found["n_changed"] == 4
    assert found["tpr_at_fpr"] == {"0.01": 0.5, "0.05": 0.5}
    # by risk: right .05, then wrong: errors 0, 1/2, 2/3, 3/4, 4/5
    assert found["aurc"] == pytest.approx((0 + 1 / 2 + 2 / 3 + 3 / 4 + 4 / 5) / 5)
    assert "auroc" not in abstention(parts["clean"], parts["clean"])
