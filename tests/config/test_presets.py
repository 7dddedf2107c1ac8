"""Presets stand before the caller's overrides and give way to them."""

import pytest

from robustforge.config.locate import config_folder
from robustforge.config.presets import preset_overrides


def of(*arguments: str) -> dict[str, str]:
    return dict(item.split("=", 1) for item in preset_overrides(arguments, config_folder()))


def test_the_pair_picks_the_preset():
    assert of("dataset=cifar10")["model"] == "resnet50"
    assert of("defense=memdef", "dataset=cifar10")["selector"] == "offline"
    assert "model" not in of()  # the embedded default keeps its small network
    assert of()["dataset.batch_size"] == "64"


@pytest.mark.parametrize(
    "arguments",
    [("defense=none", "dataset=cifar10"), ("-m", "dataset=cifar10"), ("experiment=memdef/pgd_long",)],
)
def test_no_preset_for_other_pairs_sweeps_and_experiments(arguments):
    assert of(*arguments) == {}


def test_the_caller_wins_by_key_and_by_group():
    given = of("dataset=cifar10", "model=small_cnn", "stack=short", "defense.memory_size=100")
    assert "model" not in given
    assert "model.stem" not in given  # an option of the group that was replaced
    assert not any(key.startswith("stack") for key in given)
    assert "defense.memory_size" not in given
    assert given["selector"] == "offline"


def test_preset_keys_stay_out_of_the_run_folders_name():
    hidden = of("dataset=cifar10", "seed=1")["hydra.job.config.override_dirname.exclude_keys"].strip("[]").split(",")
    assert {"model", "selector", "defense", "dataset"} <= set(hidden)
    assert "seed" not in hidden


def test_a_second_pass_adds_nothing():
    first = preset_overrides(["dataset=cifar10"], config_folder())
    again = preset_overrides([*first, "dataset=cifar10"], config_folder())
    assert again == []
