"""The adapted number of another run and attack, and the curves behind a table of AUROCs."""

import pytest
from detection_cells import CLEAN_RISK, FGS, cell
from drawn import assert_drawn
from made_up import table
from recorded import join

from robustforge.papers.comparison import compare
from robustforge.papers.roc_figure import roc_figure
from robustforge.records.table import read_records

SPEC = table({
    "paper_table": "mrr_table1",
    "rows": [
        {"label": "pooled", "paper_row": {"attack": "FGS"}, "run": "own", "system": "mrr", "paper_surface": "victim",
         "attack": "fgsm", "adapted_run": "other", "adapted_attack": "aware", "adapted": "white_box"},
        {"label": "copied", "paper_row": {"attack": "JSMA"}},
    ],
    "columns": [
        {"label": "AUC", "paper_key": "MNIST", "paper_scale": 100, "metric": "auroc_flipped"},
        {"label": "missed", "paper_key": None, "metric": "missed"},
        {"label": "standing", "paper_key": None, "eps": 0.3},
        {"label": "alarms", "paper_key": None, "attack": "clean", "metric": "rejected"},
    ],
})  # fmt: skip


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
    assert_drawn(roc_figure(SPEC, {"own": read_records(results["own"])}, tmp_path / "roc.png"))
    assert roc_figure(SPEC, {}, tmp_path / "none.png") is None
