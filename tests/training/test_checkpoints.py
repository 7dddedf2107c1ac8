"""Checkpoints are written straight into their file."""

import tempfile

import pytest
import torch

from robustforge.training.checkpoints import LocalCheckpoints


def test_nothing_goes_through_the_folder_of_temporary_files(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", "/no/such/folder")
    path = tmp_path / "resume.half"
    LocalCheckpoints().save_checkpoint({"weights": torch.arange(3), "epoch": 2}, path)
    loaded = LocalCheckpoints().load_checkpoint(path, weights_only=True)
    assert (loaded["weights"].tolist(), loaded["epoch"]) == ([0, 1, 2], 2)
    assert [file.name for file in tmp_path.iterdir()] == ["resume.half"]


def test_a_full_disk_is_an_error_of_the_file_system():
    with pytest.raises(OSError, match="No space left"):
        LocalCheckpoints().save_checkpoint({"weights": torch.zeros(10_000)}, "/dev/full")
