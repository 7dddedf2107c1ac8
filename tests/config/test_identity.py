"""What a run is: its folder's name and the comparison of configurations leave out where and how it is shown."""

import shutil

import numpy as np
import pytest

from robustforge.config.identity import content_name, deciding, is_shown, naming_overrides
from robustforge.config.resolvers import run_folder

SHOWN = [
    "logger=wandb", "logger.offline=true", "+logger.project=mine", "paths.output_dir=/x", "paths.store_dir=y",
    "callbacks=none", "callbacks=default", "~callbacks.progress", "trainer.enable_progress_bar=false",
    "trainer.enable_model_summary=true", "++trainer.log_every_n_steps=5", "tags=[a,b]", "name=mine",
    "dataset.data_dir=/data", "store.made_by_other_code=remake", "evaluate=false", "report=false", "dataset.download=true",
]  # fmt: skip
DECIDING = [
    "seed=1",
    "trainer.precision=bf16-mixed",
    "dataset.eps=0.1",
    "defense.name=x",
    "model.paths=3",
    "trainer=gpu",
    "callbacks=compile",
    "callbacks.mine._target_=a.B",
]


@pytest.mark.parametrize("override", SHOWN)
def test_what_is_only_shown_names_nothing(override):
    assert naming_overrides([override]) == ""
    assert naming_overrides(["seed=1", override]) == "seed=1"


@pytest.mark.parametrize("override", DECIDING)
def test_what_decides_numbers_is_named(override):
    assert naming_overrides([override]) == override
    assert naming_overrides([override], unnamed=[override.partition("=")[0]]) == ""


def test_values_and_names_follow_one_rule():
    values = {"seed": 1, "logger": {"kind": "csv"}, "trainer": {"devices": 1, "log_every_n_steps": 5},
              "dataset": {"path": "a", "eps": 0.1}}  # fmt: skip
    assert deciding(values) == {"seed": 1, "trainer": {"devices": 1}, "dataset": {"eps": 0.1}}
    assert is_shown("logger.offline")
    assert not is_shown("loggers")


def archive(path, value):
    path.parent.mkdir(exist_ok=True)
    np.savez(path, x_train=np.full(3, value))
    return path


def test_data_is_named_by_its_name_and_content_not_by_its_place(tmp_path):
    one, other = archive(tmp_path / "a" / "mine.npz", 1), archive(tmp_path / "b" / "mine.npz", 2)
    names = [naming_overrides([f"dataset.path={path}"]) for path in (one, other)]
    assert names[0] != names[1], "two archives of one name"
    assert all(name.startswith("dataset.path=mine-") and str(tmp_path) not in name for name in names)
    moved = tmp_path / "c" / "mine.npz"
    moved.parent.mkdir()
    shutil.move(one, moved)
    assert naming_overrides([f"dataset.path='{moved}'"]) == names[0]
    assert naming_overrides([f"dataset.path={tmp_path / 'a'}"]) == "dataset.path=a"  # a folder of images
    assert naming_overrides(["dataset.path=no/such.npz"]) == "dataset.path=such.npz"


def test_other_files_are_named_by_content_too(tmp_path):
    weights = tmp_path / "net.pt"
    weights.write_bytes(b"one")
    before = naming_overrides([f"defense.weights={weights}"])
    assert before == f"defense.weights={content_name(weights)}"
    weights.write_bytes(b"other")
    assert naming_overrides([f"defense.weights={weights}"]) != before


def test_run_folders_are_named_by_their_configuration(tmp_path):
    for place, seed in (("a", 0), ("b", 0), ("c", 1)):
        (tmp_path / place / "default").mkdir(parents=True)
        (tmp_path / place / "default" / "config.yaml").write_text(f"seed: {seed}\n")
    names = [naming_overrides([f"defense.baseline={tmp_path / place / 'default'}"]) for place in "abc"]
    assert names[0] == names[1] != names[2]
    assert all(name.startswith("defense.baseline=default-") for name in names)


def test_fractions_are_safe_in_a_folders_name():
    assert run_folder("threat.eps=8/255") == "threat.eps-8_255"
    assert run_folder("seed=1,threat.eps=8/255") == "seed-1_threat.eps-8_255"
