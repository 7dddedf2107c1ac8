"""Finished batches are found again by the samples that they hold."""

import numpy as np
import pytest
import torch

from robustforge.evaluation.parts import Parts


def test_found_by_the_very_samples_and_gone_when_discarded(tmp_path):
    parts = Parts(tmp_path / "cell")
    index = torch.tensor([3, 7, 20])
    assert parts.find(index) is None
    parts.keep(index, {"label": np.array([1, 2, 3]), "risk": np.array([0.5, np.nan, 2.0])})
    found = parts.find(index.clone())
    assert found["label"].tolist() == [1, 2, 3]
    assert np.array_equal(found["risk"], [0.5, np.nan, 2.0], equal_nan=True)
    assert parts.find(torch.tensor([3, 7])) is None
    assert parts.find(torch.tensor([7, 3, 20])) is None
    parts.discard()
    assert parts.find(index) is None
    parts.discard()  # nothing there is no mistake


def test_a_half_written_batch_is_never_found(tmp_path, monkeypatch):
    parts = Parts(tmp_path / "cell")

    def killed(path, **columns):
        path.write_bytes(b"PK half")
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez", killed)
    with pytest.raises(KeyboardInterrupt):
        parts.keep(torch.tensor([1]), {"label": np.array([1])})
    assert parts.find(torch.tensor([1])) is None
