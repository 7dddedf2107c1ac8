"""Finished batches are found again, whatever their sizes and whoever attacked them."""

import numpy as np
import pytest

from robustforge.evaluation.parts import Parts


def columns(*index, label=0):
    return {"index": np.array(index), "label": np.array([label] * len(index)), "risk": np.linspace(0, 1, len(index))}


def test_batches_of_any_size_are_found_and_gone_when_discarded(tmp_path):
    parts = Parts(tmp_path / "cell")
    assert parts.finished().parts == []
    parts.keep(columns(3, 7, 20), seconds=1.5)
    parts.keep(columns(1), seconds=0.25)
    found = parts.finished()
    assert sorted(found.index.tolist()) == [1, 3, 7, 20]
    assert found.seconds == 1.75
    assert sorted(len(part["label"]) for part in found.parts) == [1, 3]
    assert all(set(part) == {"index", "label", "risk"} for part in found.parts)
    parts.discard()
    assert parts.finished().index.size == 0
    parts.discard()  # nothing there is no mistake


def test_a_sample_of_two_batches_counts_once(tmp_path):
    parts = Parts(tmp_path / "cell")
    parts.keep(columns(1, 2, 3))
    parts.keep(columns(2, 3, 4))
    found = parts.finished()
    assert sorted(found.index.tolist()) == [1, 2, 3, 4]
    assert sum(len(part["label"]) for part in found.parts) == 4


def test_missing_values_come_back(tmp_path):
    parts = Parts(tmp_path / "cell")
    parts.keep({"index": np.array([1, 2]), "risk": np.array([0.5, np.nan])})
    assert np.array_equal(parts.finished().parts[0]["risk"], [0.5, np.nan], equal_nan=True)


def test_a_half_written_batch_is_never_found(tmp_path, monkeypatch):
    parts = Parts(tmp_path / "cell")

    def killed(path, **columns):
        path.write_bytes(b"PK half")
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez", killed)
    with pytest.raises(KeyboardInterrupt):
        parts.keep(columns(1))
    assert parts.finished().index.size == 0
