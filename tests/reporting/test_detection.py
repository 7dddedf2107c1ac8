"""Detection among turned images, distortions over a baseline, and the adapted number of another run, by hand."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from robustforge.papers.comparison import compare
from robustforge.records.detection import auroc_interval
from robustforge.records.metrics import measure
from robustforge.records.records import read_records
from robustforge.reporting.figures.roc_figure import roc_figure

from .conftest import join, make_cell
from .test_figures import assert_drawn

N = 10
CLEAN_RISK = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.15, 0.25, 0.35, 0.45, 0.9])


def cell(attack, held, risk, *, eps=0.3, norm="linf", accepted=None, l2=1.0, surface="victim"):
    made = make_cell("mrr", attack, "none" if attack == "clean" else surface, 0.0 if attack == "clean" else eps, held,
                     norm="none" if attack == "clean" else norm, accepted=accepted)  # fmt: skip
    return made | {"risk": np.asarray(risk, dtype=float), "l2": np.broadcast_to(np.asarray(l2, float), N).copy()}


def records(*attacked):
    return read_records(join(cell("clean", [1] * 9 + [0], CLEAN_RISK), *attacked))


FGS = cell("fgsm", [0, 0, 0, 1, 1, 1, 1, 1, 1, 0], [0.8, 0.6, 0.22, 0, 0, 0, 0, 0, 0, 0.99],
           accepted=[0, 0, 1, 1, 1, 1, 1, 1, 1, 0])  # fmt: skip
MORE = cell("fgsm", [0] * 10, [0.7] * 10, eps=0.5, accepted=[0] * 10)
BIM = cell("bim", [0, 1, 1, 1, 1, 1, 1, 1, 1, 1], [0.3] * 10)
CW = cell("cw", [0] * 6 + [1] * 4, [0.2] * 10, norm="l2", eps=28.0, l2=[1, 2, 3, 4, 5, 6, 28, 28, 28, 28])
ALONE = cell("cw", [0] * 9 + [1], [np.nan] * 10, norm="l2", eps=28.0, l2=[1, 1, 2, 2, 2, 2, 3, 3, 3, 28])


def where(metric, attack="fgsm", **changes):
    return {"metric": metric, "system": "mrr", "attack": attack, **changes}


def test_only_right_images_that_were_turned_count():
    known = records(FGS)
    found, reason = measure(where("auroc_flipped"), "victim", known, None)
    negative, positive = CLEAN_RISK[:9], [0.8, 0.6, 0.22]  # the tenth was wrong to begin with
    area = roc_auc_score([0] * 9 + [1] * 3, [*negative, *positive])
    assert not reason
    assert (found["accuracy"], found["n"], found["seed"]) == (pytest.approx(100 * area), 3, 3)
    low, high = found["interval"]
    assert 0 <= low < 100 * area < high <= 100
    assert measure(where("flipped"), "victim", known, None)[0]["accuracy"] == pytest.approx(100 * 3 / 9)
    assert measure(where("missed"), "victim", known, None)[0]["accuracy"] == pytest.approx(100 * 1 / 9)


def test_settings_of_an_attack_are_pooled():
    known = records(FGS, MORE, BIM)
    pooled = measure(where("auroc_flipped", pool=["bim"]), "victim", known, None)[0]
    assert (pooled["n"], pooled["interval"]) == (3 + 9 + 1, None)
    share = measure(where("flipped", pool=["bim"]), "victim", known, None)[0]
    assert (share["accuracy"], share["n"]) == (pytest.approx(100 * 13 / 27), 27)
    assert measure(where("flipped", eps=0.5), "victim", known, None)[0]["accuracy"] == 100
    nothing, reason = measure(where("flipped"), "white_box", known, None)
    assert nothing is None
    assert "fgsm on white_box" in reason
    assert measure(where("flipped"), "victim", None, None)[0] is None


def test_interval_without_any_detection_is_mann_and_whitneys():
    m, n = 58, 51
    low, high = auroc_interval(0.5, m, n)
    assert (high - low) / 200 / 1.96 == pytest.approx(np.sqrt((m + n + 1) / (12 * m * n)), rel=1e-4)
    assert auroc_interval(1.0, m, n) == (100, 100)


def test_distortions_are_divided_by_those_without_defenders():
    known, alone = records(CW), records(ALONE)
    mean, _ = measure(where("mean_l2_ratio", "cw"), "victim", known, alone)
    assert mean["accuracy"] == pytest.approx(100 * np.mean([1, 2, 3, 4, 5, 6]) / np.mean([1, 1, 2, 2, 2, 2, 3, 3, 3]))
    middle, _ = measure(where("median_l2_ratio", "cw"), "victim", known, alone)
    assert (middle["accuracy"], middle["n"]) == (pytest.approx(100 * 5 / 2), 9), "failures are longer than any success"
    failing = cell("cw", [0] * 4 + [1] * 6, [0.2] * 10, norm="l2", eps=28.0)
    assert "half of the images" in measure(where("median_l2_ratio", "cw"), "victim", records(failing), alone)[1]
    assert "divided by" in measure(where("mean_l2_ratio", "cw"), "victim", known, None)[1]


SPEC = {
    "paper_table": "mrr_table1",
    "rows": [
        {"label": "pooled", "paper_row": {"attack": "FGS"}, "run": "own", "system": "mrr", "paper_surface": "victim",
         "attack": "fgsm", "adapted_run": "other", "adapted_attack": "aware", "adapted": "white_box"},
        {"label": "copied", "paper_row": {"attack": "JSMA"}},
    ],
    "columns": [
        {"label": "AUC", "paper_key": "MNIST", "paper_scale": 100, "attack": "fgsm", "metric": "auroc_flipped"},
        {"label": "missed", "paper_key": None, "attack": "fgsm", "metric": "missed"},
        {"label": "standing", "paper_key": None, "attack": "fgsm", "eps": 0.3},
        {"label": "alarms", "paper_key": None, "attack": "clean", "metric": "rejected"},
    ],
}  # fmt: skip


def test_the_adapted_number_may_come_from_another_run_and_attack(tmp_path):
    aware = cell("aware", [0] * 8 + [1] * 2, [0.1] * 10, surface="white_box")
    results = {"own": join(cell("clean", [1] * 9 + [0], CLEAN_RISK), FGS),
               "other": join(cell("clean", [1] * 10, CLEAN_RISK, accepted=[0] + [1] * 9), aware)}  # fmt: skip
    cells = {(c.row, c.column): c for c in compare(SPEC, results)}
    assert cells["pooled", "missed"].ours == pytest.approx(100 / 9)
    assert cells["pooled", "missed"].adapted == pytest.approx(80)
    assert cells["pooled", "missed"].gap is None
    assert (cells["pooled", "standing"].ours, cells["pooled", "standing"].adapted) == (90, 20)
    assert (cells["pooled", "alarms"].ours, cells["pooled", "alarms"].adapted) == (0, 10)
    assert cells["pooled", "AUC"].verdict.endswith("short")
    assert cells["copied", "AUC"].ours is None
    lost = {(c.row, c.column): c for c in compare(SPEC, {"own": results["own"]})}
    assert lost["pooled", "missed"].adapted is None
    assert lost["pooled", "missed"].ours == pytest.approx(100 / 9)
    assert_drawn(roc_figure(SPEC, results, tmp_path / "roc.png"))
    assert roc_figure(SPEC, {"own": None, "other": {"failed": "exit code 1"}}, tmp_path / "none.png") is None
