"""Defenders side by side: bars on the loop and on vmap, the single one to be read; all sides do the same work."""

import pytest
import torch
from benchmarks import defenders as bench


def test_bench_rows(monkeypatch):
    monkeypatch.setattr(bench, "WIDTHS", {"tiny": (4, 4)})
    monkeypatch.setattr(bench, "DEFENDERS", 3)
    monkeypatch.setattr(bench, "REPETITIONS", {1: 2, 128: 2})
    rows = bench.run()
    assert [row.bar for row in rows] == [2.0, 1.5, 0.0, 1.0, 1.0, 0.0]
    for row in rows:
        speed = bool(row.bar)
        assert row.higher_is_better
        assert row.ratio == pytest.approx(row.theirs / row.ours if speed else row.ours / row.theirs)
        assert min(row.ours, row.theirs) > 0


def test_defenders_differ_and_answer_alike(monkeypatch):
    monkeypatch.setattr(bench, "DEFENDERS", 2)
    networks = bench.build((4, 4))
    x = torch.rand(3, 1, 28, 28)
    together = bench.stack(networks)(x)[0]
    one_by_one = torch.stack([logits for logits, _ in bench.loop(networks)(x)])
    torch.testing.assert_close(together, one_by_one, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(together, bench.vmapped(networks)(x)[0], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(together[0], together[1])
