"""Batched starts against a loop: both sides do the same work, and the bar stands where one image waits."""

import pytest
from benchmarks import reclassify as bench


def test_bench_rows(monkeypatch):
    monkeypatch.setattr(bench, "WIDTHS", (0.125,))
    monkeypatch.setattr(bench, "STEPS", 1)
    monkeypatch.setattr(bench, "REPETITIONS", 1)
    monkeypatch.setattr(bench, "BATCH", 2)
    searched = []
    search = bench.search_latents
    monkeypatch.setattr(
        bench, "search_latents", lambda *a: searched.append((a[1].shape[:2], len(a[2]))) or search(*a)
    )  # fmt: skip
    rows = bench.run()
    assert [row.bar for row in rows] == [5.0, 0.0]
    assert all(row.ratio == pytest.approx(row.ours / row.theirs) for row in rows)
    for images in (1, 2):
        mine = [starts for starts, n in searched if n == images]
        assert mine.count((images, 10)) == 2, "all starts in one batch, twice with the warm-up"
        assert mine.count((images, 1)) == 20, "start by start"
