"""Presets stand before the caller's overrides and give way to them."""

import pytest

from robustforge.config.locate import config_folder
from robustforge.config.presets import find_preset, for_run


def of(*arguments: str) -> dict[str, str]:
    preset = find_preset(arguments, config_folder())
    return dict(item.split("=", 1) for item in preset.applied) if preset else {}


def written(*arguments: str) -> list[str]:
    return find_preset(arguments, config_folder()).put_into(arguments)


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
    (hidden,) = (item for item in written("dataset=cifar10", "seed=1") if "exclude_keys" in item)
    hidden = hidden.split("=", 1)[1].strip("[]").split(",")
    assert {"model", "selector", "defense", "dataset"} <= set(hidden)
    assert "seed" not in hidden


def test_it_stands_before_the_first_override_and_between_flags():
    line = written("--cfg", "job", "dataset=cifar10", "seed=1", "--resolve")
    assert line[:2] == ["--cfg", "job"]
    assert line[-3:] == ["dataset=cifar10", "seed=1", "--resolve"]
    assert line[2] == "model=resnet50"
    assert written("--cfg", "job")[:2] == ["--cfg", "job"]


def test_a_second_pass_adds_nothing():
    assert find_preset(written("dataset=cifar10"), config_folder()) is None


@pytest.mark.parametrize(
    ("pair", "variant"),
    [
        (("defense=memdef", "dataset=cifar10"), "paper/memdef_cifar10"),
        (("defense=gmvae", "dataset=svhn"), "paper/gmvae_color"),
        (("defense=gmvae", "dataset=coil100"), "paper/gmvae_color"),
    ],
)
def test_the_short_form_of_the_papers_protocol_means_the_presets_variant(pair, variant):
    line = written(*pair, "protocol=paper")
    assert line == written(*pair)  # which is what the preset says anyhow
    assert [item for item in line if item.startswith("protocol=")] == [f"protocol={variant}"]
    assert "protocol=paper/memdef" in written(*pair, "protocol=paper/memdef")  # a full name is left alone


def test_the_short_form_is_left_alone_where_the_preset_names_no_papers_protocol():
    line = written("defense=memdef", "dataset=digits", "protocol=paper")
    assert [item for item in line if item.startswith("protocol")] == ["protocol=paper"]


def test_it_says_what_it_sets_and_what_gives_way():
    preset = find_preset(["dataset=cifar10", "model=small_cnn"], config_folder())
    applied, replaced = str(preset).split("and gives way to the command line in")
    assert applied.startswith("Preset conf/preset/memdef/cifar10.yaml sets\n")
    assert applied.split()[3:] == preset.applied
    assert replaced.split() == preset.replaced == ["model=resnet50", "model.stem=cifar_pool"]
    assert max(map(len, str(preset).splitlines())) <= 120
    assert "gives way" not in str(find_preset(["dataset=cifar10"], config_folder()))


@pytest.mark.parametrize(
    ("defense", "dataset", "protocol"),
    [
        ("memdef", "cifar10", "paper/memdef_cifar10"),
        ("memdef", "digits", "paper/memdef"),  # whose preset names none of the paper's
        ("dynamic", "mnist", "paper/dynamic"),  # a pair without a preset
    ],
)
def test_the_short_form_means_the_same_for_a_trained_run(tmp_path, defense, dataset, protocol):
    (tmp_path / "config.yaml").write_text(f"defense_name: {defense}\ndataset: {{name: {dataset}}}\n")
    line = [f"run='{tmp_path}'", "protocol=paper", "seed=1", "--resolve"]
    assert for_run(line, config_folder()) == [line[0], f"protocol={protocol}", "seed=1", "--resolve"]
    assert for_run(["run=nowhere", "protocol=paper"], config_folder()) == ["run=nowhere"]  # refused by the command
    assert for_run(["run=nowhere", "protocol=full"], config_folder()) == ["run=nowhere", "protocol=full"]
