"""Paths of a run that hold in every folder, and after its outputs were moved."""

import os
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from robustforge.config.places import find_store, move_to, settled
from robustforge.types import UserError


def test_places_and_files_are_absolute_and_nothing_else(compose, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ROBUSTFORGE_DATA", raising=False)
    (tmp_path / "net.pt").touch()
    cfg = settled(compose("defense=none", "dataset.path=mine.npz", "+defense.weights=net.pt", "+defense.word=pt"))
    assert cfg.paths.data_dir == cfg.dataset.data_dir == str(tmp_path / "data")
    assert cfg.paths.store_dir == str(tmp_path / "outputs" / "store")
    assert cfg.dataset.path == str(tmp_path / "mine.npz")
    assert cfg.defense.weights == str(tmp_path / "net.pt")
    assert cfg.defense.word == "pt"
    assert cfg.defense._target_.startswith("robustforge.")


def test_all_missing_values_are_named_at_once(compose):
    with pytest.raises(UserError, match=r"add dataset.path=<value> dataset.shape=<value> dataset.num_classes=<value>"):
        settled(compose("dataset=npz", "defense=none"))


@pytest.mark.parametrize("run", ["outputs/none_digits/default", "run"])
def test_the_store_is_found_where_it_was_and_beside_a_moved_run(tmp_path, run):
    old, new = tmp_path / "old", tmp_path / "new"
    (old / "outputs" / "store").mkdir(parents=True)
    (old / run).mkdir(parents=True)
    recorded = str(old / "outputs" / "store")
    assert find_store(recorded, old / run) == Path(recorded)
    os.rename(old, new)
    assert find_store(recorded, new / run) == new / "outputs" / "store"
    assert find_store("outputs/store", new / run) == new / "outputs" / "store"  # as earlier versions wrote it
    os.rename(new / "outputs" / "store", tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"paths\.store_dir="):
        find_store(recorded, new / run)


def test_the_reader_of_a_run_says_where_its_files_lie_now(tmp_path):
    recorded = {
        "paths": {"store_dir": "/gone/store", "data_dir": "/gone"},
        "dataset": {"data_dir": "/gone", "path": None},
    }
    asked = {"paths": {"store_dir": str(tmp_path), "data_dir": "/here"}, "dataset": {"path": "/here/mine.npz"}}
    cfg = OmegaConf.create(recorded)
    move_to(cfg, tmp_path, OmegaConf.create(asked))
    assert cfg.paths.store_dir == str(tmp_path)
    assert cfg.dataset == {"data_dir": "/here", "path": "/here/mine.npz"}
    asked["paths"]["store_dir"] = str(tmp_path / "nothing")
    with pytest.raises(UserError, match="no folder"):
        move_to(cfg, tmp_path, OmegaConf.create(asked))
    assert not (tmp_path / "nothing").exists()
