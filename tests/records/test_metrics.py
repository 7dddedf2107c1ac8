"""Detection among turned images, and distortions over a baseline, by hand."""

import numpy as np
import pytest
from detection_cells import ALONE, BIM, CLEAN_RISK, CW, FGS, MORE, cell, records
from sklearn.metrics import roc_auc_score

from robustforge.records.detection import auroc_interval
from robustforge.records.metrics import Selection, measure


def selection(attack="fgsm", *, pool=(), surface="victim", eps=None):
    return Selection("mrr", (attack, *pool), surface, eps=eps)


def test_only_right_images_that_were_turned_count():
    known = records(FGS)
    found, reason = measure("auroc_flipped", selection(), known, None)
    negative, positive = CLEAN_RISK[:9], [0.8, 0.6, 0.22]  # the tenth was wrong to begin with
    area = roc_auc_score([0] * 9 + [1] * 3, [*negative, *positive])
    assert not reason
    assert (found["accuracy"], found["n"], found["seed"]) == (pytest.approx(100 * area), 3, 3)
    low, high = found["interval"]
    assert 0 <= low < 100 * area < high <= 100
    assert measure("flipped", selection(), known, None)[0]["accuracy"] == pytest.approx(100 * 3 / 9)
    assert measure("missed", selection(), known, None)[0]["accuracy"] == pytest.approx(100 * 1 / 9)


def test_settings_of_an_attack_are_pooled():
    known = records(FGS, MORE, BIM)
    pooled = measure("auroc_flipped", selection(pool=["bim"]), known, None)[0]
    assert (pooled["n"], pooled["interval"]) == (3 + 9 + 1, None)
    share = measure("flipped", selection(pool=["bim"]), known, None)[0]
    assert (share["accuracy"], share["n"]) == (pytest.approx(100 * 13 / 27), 27)
    assert measure("flipped", selection(eps=0.5), known, None)[0]["accuracy"] == 100
    nothing, reason = measure("flipped", selection(surface="white_box"), known, None)
    assert nothing is None
    assert "fgsm on white_box" in reason
    assert measure("flipped", selection(), None, None)[0] is None


def test_interval_without_any_detection_is_mann_and_whitneys():
    m, n = 58, 51
    low, high = auroc_interval(0.5, m, n)
    assert (high - low) / 200 / 1.96 == pytest.approx(np.sqrt((m + n + 1) / (12 * m * n)), rel=1e-4)
    assert auroc_interval(1.0, m, n) == (100, 100)


def test_distortions_are_divided_by_those_without_defenders():
    known, alone = records(CW), records(ALONE)
    mean, _ = measure("mean_l2_ratio", selection("cw"), known, alone)
    assert mean["accuracy"] == pytest.approx(100 * np.mean([1, 2, 3, 4, 5, 6]) / np.mean([1, 1, 2, 2, 2, 2, 3, 3, 3]))
    middle, _ = measure("median_l2_ratio", selection("cw"), known, alone)
    assert (middle["accuracy"], middle["n"]) == (pytest.approx(100 * 5 / 2), 9), "failures are longer than any success"
    failing = cell("cw", [0] * 4 + [1] * 6, [0.2] * 10, norm="l2", eps=28.0)
    assert "half of the images" in measure("median_l2_ratio", selection("cw"), records(failing), alone)[1]
    assert "divided by" in measure("mean_l2_ratio", selection("cw"), known, None)[1]


def test_distortions_may_be_divided_by_those_of_another_system():
    beside = records(CW, ALONE | {"system": ["undefended"] * 10, "surface": ["end_to_end"] * 10})
    same, _ = measure("mean_l2_ratio", selection("cw"), beside, beside)
    assert same["accuracy"] == 100
    mean, _ = measure("mean_l2_ratio", selection("cw"), beside, beside, "undefended")
    assert mean["accuracy"] == pytest.approx(100 * np.mean([1, 2, 3, 4, 5, 6]) / np.mean([1, 1, 2, 2, 2, 2, 3, 3, 3]))
    assert "not run uniquely" in measure("mean_l2_ratio", selection("cw"), beside, beside, "stranger")[1]
