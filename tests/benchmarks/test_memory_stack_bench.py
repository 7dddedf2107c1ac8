"""What memory costs: the paper's figures stand beside one ratio a row, and no bar can fail."""

import pytest
from benchmarks import memory_stack as bench

from robustforge.nn.small_cnn import small_cnn


def test_bench_rows(monkeypatch):
    monkeypatch.setattr(bench, "REPETITIONS", {1: 1, 2: 1})
    monkeypatch.setattr(bench, "resnet50", lambda *of, stem: small_cnn(*of, widths=(4, 8), hidden=8))
    rows = bench.run()
    assert len(rows) == 2 * 2 * 6
    assert all(row.passed and row.ratio == pytest.approx(row.ours / row.theirs) for row in rows)
    paper = [row for row in rows if "0.00619 s" in row.note]
    assert len(paper) == 4
    assert all("a ratio of 3.62" in row.note for row in paper)
    assert {row.name.split(" / ")[0] for row in rows} >= {
        "encoder",
        "memory",
        "decoder",
        "classifier-A",
        "classifier-B",
    }
