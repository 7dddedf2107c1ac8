"""Latencies side by side: a bar only where the paper compares."""

import pytest
from benchmarks import purifiers as bench


def test_bench_rows(monkeypatch):
    monkeypatch.setattr(bench, "REPETITIONS", {1: 1, 2: 1})
    monkeypatch.setattr(bench, "SLOW_REPETITIONS", {1: 1, 2: 1})
    build = bench.build
    monkeypatch.setattr(bench, "build", lambda steps: build(2, restarts=1))
    rows = bench.run()
    assert len(rows) == 14
    assert all(row.ratio == pytest.approx(row.ours / row.theirs) and row.higher_is_better for row in rows)
    paper = [row for row in rows if "14.80 s" in row.note]
    assert len(paper) == 4
    assert all(row.bar == 1 for row in paper)
    assert [round(bench.PAPER_SECONDS[n] / 0.008) for n in ("puvae", "defense_gan")] == [14, 1850]
    assert all(row.passed for row in rows if row not in paper)
