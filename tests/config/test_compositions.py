"""Every file under conf/ composes, and every node fits the signature of its target."""

import importlib
import inspect
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from robustforge.config.instantiate import build
from robustforge.config.presets import find_preset
from robustforge.config.tables import GIVEN

CONF = Path(__file__).resolve().parents[2] / "conf"
HYDRA_KEYS = {"_target_", "_partial_", "_convert_", "_recursive_", "_args_"}
NOT_GROUPS = ("preset", "reproduce", "hydra")
# what these data sets leave to the caller
REQUIRED = {
    "npz": ("dataset.path=a.npz", "dataset.shape=[3,32,32]", "dataset.num_classes=10"),
    "imagefolder": ("dataset.path=folder", "dataset.num_classes=10"),
}
NEEDS = {
    **REQUIRED,
    "pretrained": ("defense.network=${model}",),
    "own": ("model.network._target_=torch.nn.Flatten",),
}
# groups that have nothing to do with each other, nor with the protocol
RIDERS = ("attack", "threat", "trainer", "callbacks", "logger", "optimizer", "scheduler", "paths")
# groups that one defense brings along
OWNERS = {"inner": ("defense=dfl_pcl",), "feature_loss": ("defense=dfl_pcl",)}


def options():
    """(group, option) of every file that is picked by group=option."""
    found = []
    for path in sorted(CONF.rglob("*.yaml")):
        group, _, option = path.relative_to(CONF).with_suffix("").as_posix().partition("/")
        if option and group not in NOT_GROUPS:
            found.append((group, option))
    return found


def nodes(value, path=""):
    """Every mapping with a _target_ inside plain values, innermost included."""
    if isinstance(value, dict):
        if "_target_" in value:
            yield path, value
        for key, item in value.items():
            yield from nodes(item, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for k, item in enumerate(value):
            yield from nodes(item, f"{path}[{k}]")


def located(target):
    module, _, name = target.rpartition(".")
    return getattr(importlib.import_module(module), name)


def misfits(path, node):
    """What is wrong with one node, in words."""
    parameters = inspect.signature(located(node["_target_"])).parameters
    given = set(node) - HYDRA_KEYS - set(GIVEN if path == "defense" else ())
    takes = {p.name for p in parameters.values() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        yield f"{path}: {node['_target_']} takes **anything, so that a mistyped key would pass"
    for key in sorted(given - takes):
        yield f"{path}: {node['_target_']} has no parameter '{key}'"
    if not node.get("_partial_"):
        for p in parameters.values():
            if p.default is p.empty and p.name in takes and p.name not in given:
                yield f"{path}: {node['_target_']} needs '{p.name}'"


def check(cfg):
    plain = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    found = list(nodes(plain))
    assert {"dataset", "model", "defense", "protocol", "trainer", "optimizer"} <= {path for path, _ in found}
    wrong = [line for path, node in found for line in misfits(path, node)]
    assert not wrong, "\n".join(wrong)
    return plain


def test_the_checker_finds_what_it_is_there_for():
    node = {"_target_": "robustforge.types.Threat", "norm": "linf", "epsilon": 0.1}
    assert list(misfits("threat", node)) == ["threat: robustforge.types.Threat has no parameter 'epsilon'"]
    needy = {"_target_": "robustforge.data.datamodule.ImageData", "kind": "npz", "shape": [1, 8, 8]}
    assert {line.rsplit(" ", 1)[-1] for line in misfits("dataset", needy)} == {"'name'", "'num_classes'"}
    with pytest.raises(AttributeError):
        located("robustforge.types.Thraet")


def test_every_promised_group_is_there():
    promised = {
        "dataset", "model", "defense", "attack", "threat", "protocol", "optimizer", "scheduler", "trainer", "callbacks",
        "logger", "paths", "selector", "stack", "debug", "experiment", "inner", "feature_loss",
    }  # fmt: skip
    assert promised <= {group for group, _ in options()}


def cases():
    """Every option in one composition: those of RIDERS in turn beside the protocols, all others alone."""
    found = [[one] for one in options() if one[0] not in RIDERS]
    hosts = [case for case in found if case[0][0] == "protocol"]
    for rider in RIDERS:
        riders = [one for one in options() if one[0] == rider]
        assert riders
        assert len(riders) <= len(hosts)
        for host, one in zip(hosts, riders, strict=False):
            host.append(one)
    assert sorted(one for case in found for one in case) == sorted(options())
    return found


@pytest.mark.parametrize("case", cases(), ids=lambda case: " ".join(map("=".join, case)))
def test_options_compose_and_fit(compose, case):
    needs = [item for group, option in case for item in (*OWNERS.get(group, ()), *NEEDS.get(option, ()))]
    plain = check(compose(*needs, *map("=".join, case)))
    for group, option in case:
        if group in ("dataset", "protocol"):  # the file's name is the config's and the row's
            assert plain[group]["name"] == {"paper": "paper/memdef"}.get(option, option)
        if group == "attack":  # worst_case is what tables call the minimum over everything
            assert plain[group].get("name", "none") == {"worst_case": "worst_of"}.get(option, option)


@pytest.mark.parametrize("victim", ["none", "adversarial_training", "dynamic", "dfl_pcl"])
def test_modular_robust_redundancy_takes_other_defenses_for_its_victim(compose, victim):
    cfg = compose("defense=mrr", f"+defense@defense.victim={victim}", "model=resnet18")
    check(cfg)
    built = build(cfg.defense)
    assert built.undefended is built.victim.classifier_network()
    assert build(compose(f"defense={victim}", "model=resnet18").defense).classifier_network() is not None


@pytest.mark.parametrize("option", sorted(REQUIRED))
def test_data_of_ones_own_names_what_it_needs(compose, option):
    missing = {f"dataset.{key.rsplit('.')[-1]}" for key in OmegaConf.missing_keys(compose(f"dataset={option}").dataset)}
    assert missing == {item.partition("=")[0] for item in REQUIRED[option]}


# ---- presets: a list of overrides for a pair ------------------------------------------------------------------------

PRESETS = sorted((CONF / "preset").glob("*/*.yaml"))


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_preset_names_a_pair_and_composes(compose, path):
    defense, dataset = path.parent.name, path.stem
    assert (CONF / "defense" / f"{defense}.yaml").exists()
    assert (CONF / "dataset" / f"{dataset}.yaml").exists()
    written = OmegaConf.load(path)
    assert list(written) == ["overrides"], "a preset is a list of overrides and nothing else"
    call = [f"defense={defense}", f"dataset={dataset}"]
    preset = find_preset(call, CONF)
    assert preset.applied == list(written.overrides)  # all of it, in order
    plain = check(compose(*preset.applied, *call))
    for item in written.overrides:
        key, _, value = item.partition("=")
        node = OmegaConf.select(OmegaConf.create(plain), key)
        if not isinstance(node, dict) and not OmegaConf.is_config(node):
            assert node == OmegaConf.create(f"value: {value}").value, item


def test_the_caller_wins_over_the_preset():
    preset = find_preset(["defense=memdef", "dataset=cifar10", "model=lenet", "defense.memory_size=20"], CONF)
    keys = [item.partition("=")[0] for item in preset.applied]
    assert keys  # the rest of the preset still applies
    assert "defense.memory_size" not in keys
    assert not any(key.split(".")[0] == "model" for key in keys), "model=lenet must not be given resnet50's options"


@pytest.mark.parametrize("arguments", [["-m"], ["--multirun"], ["experiment=memdef/ablation"], ["defense=none"]])
def test_no_preset_where_none_belongs(arguments):
    assert find_preset(arguments, CONF) is None


# ---- attacks of torchattacks, which have no file --------------------------------------------------------------------


def test_every_torchattack_constructs_and_two_compose(compose):
    from robustforge.attacks.torchattacks import TorchAttack, attack_names
    from robustforge.config.resolvers import TORCHATTACKS

    names = attack_names()
    assert names == TORCHATTACKS, "the options are written down and have to follow the installed version"
    for name in names:
        assert TorchAttack(name).name == f"torchattacks/{name}"
    for name in (names[0], names[-1]):
        assert check(compose(f"attack=torchattacks/{name}"))["attack"]["attack"] == name
