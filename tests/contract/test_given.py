"""Networks trained elsewhere: as the undefended classifier of a defense, and as a row beside it."""

import importlib
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest
import torch
from omegaconf import OmegaConf

import robustforge as rf
from robustforge.cli import evaluate, pipeline
from robustforge.config.defenses import build_baseline, build_defense
from robustforge.config.given import keep_given
from robustforge.config.places import settled
from robustforge.config.run_folder import experiment_values
from robustforge.data.augment import Augment
from robustforge.defenses.stages import CalibrateStage
from robustforge.fingerprint import key_of
from robustforge.nn.lenet import lenet
from robustforge.training.keys import describe_stage
from robustforge.types import UserError

TINY = (
    "debug=fast", "dataset.limit_train=64", "dataset.limit_test=8", "dataset.batch_size=32", "model=lenet",
    "trainer.enable_progress_bar=false", "attack=none", "protocol.suites.all.attacks={fgsm: {}}",
    "+protocol.pictures=false",
)  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("given")


@pytest.fixture(scope="module")
def composed(compose, place):
    """composed(*overrides): a tiny composition whose outputs lie in ``place``."""

    def call(*overrides, out="outputs"):
        return compose(*TINY, f"paths.output_dir={place / out}", f"paths.store_dir={place / out / 'store'}", *overrides)

    return call


@pytest.fixture(scope="module")
def plain(composed, place):
    """The folder of a run of defense=none."""
    pipeline.train(composed("defense=none", "evaluate=false", out="first"), place / "first" / "none")
    return place / "first" / "none"


@pytest.fixture(scope="module")
def weights(place):
    """weights(seed): a file with those of a network, and the network."""

    def call(seed=0):
        torch.manual_seed(seed)
        network = lenet((1, 28, 28), 10, [0.5], [0.5]).eval()
        torch.save(network.state_dict(), place / f"{seed}.pt")
        return place / f"{seed}.pt", network

    return call


def kept(cfg, trust=()):
    return keep_given(settled(cfg), trust)


DATA = SimpleNamespace(fingerprint="data", batch_size=32, eval_batch_size=64, augment=Augment(), seed=0)


def keys_of(defense):
    """Stage name -> key of its product."""
    keys = {}
    for stage in defense.stages():
        keys[stage.name] = key_of(describe_stage(stage, defense, DATA, keys, {}))
    return keys


@pytest.mark.parametrize("defense", ["adversarial_training", "memdef", "cae", "mrr", "dynamic", "dfl_pcl", "gmvae"])
def test_the_classifier_is_taken_and_counts_by_its_weights(composed, place, defense):
    names = {
        "adversarial_training": ["defense.warm_start=true"],
        "dfl_pcl": ["model=resnet18", "defense.warm_start=true"],
        "memdef": ["selector=offline"],
    }.get(defense, [])
    cfg = composed(f"defense={defense}", *names)
    plain = build_defense(cfg.defense)
    network, keys = plain.undefended, []
    for value in (1.0, 2.0):
        for parameter in network.parameters():
            parameter.data.fill_(value)
        torch.save(network.state_dict(), place / f"{defense}.pt")
        cfg.defense.undefended_from = str(place / f"{defense}.pt")
        taken = build_defense(kept(cfg).defense)
        assert torch.equal(next(taken.undefended.parameters()), next(network.parameters()))
        (given,) = (stage for stage in taken.stages() if stage.name == "undefended")
        assert isinstance(given, CalibrateStage), "nothing is trained"
        keys.append(keys_of(taken))
    assert keys[0].keys() == keys_of(plain).keys()
    using = {stage.name for stage in plain.stages() if "undefended" in stage.uses} | {"undefended"}
    assert using > {"undefended"} or defense in ("dynamic", "gmvae"), "which do not start from it"
    for name in using:
        assert len({keys[0][name], keys[1][name], keys_of(plain)[name]}) == 3, name


def trained(composed, place, name, *overrides):
    folder = place / "outputs" / name
    pipeline.train(composed("defense=adversarial_training", "defense.robust.attack.steps=1", *overrides), folder)
    return folder


def asked(folder, *overrides):
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    GlobalHydra.instance().clear()
    conf = str(Path(__file__).resolve().parents[2] / "conf")
    with initialize_config_dir(config_dir=conf, version_base="1.3"):
        return compose("evaluate", [f"run={folder}", "attack=none", "progress=false", *overrides])


@pytest.fixture(scope="module")
def compared(composed, place, plain, weights):
    """A run that starts from another run's classifier and has its weights as baseline; both are gone afterwards."""
    source, _ = weights(3)
    gone = shutil.copytree(plain, place / "first" / "gone")
    given = [f"defense.undefended_from={gone}", f"defense.baseline={source}", "defense.warm_start=true"]
    folder = trained(composed, place, "compared", *given)
    shutil.rmtree(gone)
    source.unlink()
    return folder


def test_a_run_takes_both(compared, plain, weights):
    defense, before = rf.load_run(compared), rf.load_run(plain)
    x = torch.rand(5, 1, 28, 28)
    assert torch.equal(defense.undefended(x), before.undefended(x))
    records = pq.read_table(compared / "records.parquet").to_pylist()
    rows = {}
    for record in records:
        if record["attack"] == "fgsm":
            rows.setdefault(record["system"], []).append(record["index"])
    assert set(rows) == {"undefended", "baseline", "adversarial_training"}
    assert rows["baseline"] == rows["undefended"] == rows["adversarial_training"], "paired"
    result = json.loads((compared / "result.json").read_text())
    assert result["defense"] == "adversarial_training"
    assert [stage["name"] for stage in result["stages"]] == ["undefended", "classifier"]
    _, network = weights(3)
    baseline = build_baseline(OmegaConf.load(compared / "config.yaml").defense)
    assert torch.equal(baseline(x).logits, network(x))


def test_a_moved_run_is_evaluated_and_loaded_without_its_sources(compared, place, tmp_path):
    moved = shutil.copytree(place / "outputs", tmp_path / "moved")
    hidden = (place / "outputs").rename(place / "hidden")
    try:
        rf.load_run(moved / "compared")
        cfg = asked(moved / "compared", "protocol=clean")
        evaluate._evaluate(cfg)
        (path,) = (moved / "compared" / "evaluations").glob("*/result.json")
        assert {c["system"] for c in json.loads(path.read_text())["cells"]} >= {"baseline", "undefended"}
    finally:
        hidden.rename(place / "outputs")


def test_a_trained_run_gets_a_baseline(plain, compared, weights):
    for given in (compared, weights(4)[0]):
        evaluate._evaluate(asked(plain, "protocol=clean", f"defense.baseline={given}"))
    evaluate._evaluate(asked(plain, "protocol=clean"))
    found = sorted((plain / "evaluations").glob("*/records.parquet"))
    assert len(found) == 3, "each in a folder of its own"
    systems = sorted(sorted(set(pq.read_table(path)["system"].to_pylist())) for path in found)
    assert systems == [["baseline", "none"], ["baseline", "none"], ["none"]]


MINE = """
from torch import nn

class Small(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(1, 4, 3, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(324, 10))
"""


def test_networks_of_ones_own_and_their_normalization(composed, place, monkeypatch):
    (place / "brought.py").write_text(MINE)
    monkeypatch.syspath_prepend(place)
    network = importlib.import_module("brought").Small().eval()
    torch.save(network.state_dict(), place / "small.pt")
    pretrained = [
        "defense=pretrained", "defense.network._target_=brought.Small", f"defense.weights={place / 'small.pt'}",
    ]  # fmt: skip
    folder = place / "own"
    pipeline.train(composed(*pretrained, "defense.mean=0.5", "defense.std=0.5", "evaluate=false", out="own"), folder)
    own = ["defense=cae", "model=own", "model.network._target_=brought.Small", f"defense.undefended_from={folder}"]
    with pytest.raises(UserError, match="add trust=brought"):
        kept(composed(*own))
    with pytest.raises(UserError, match="answers otherwise all the same"):
        kept(composed(*own), "brought")
    cfg = kept(composed(*own, "model.mean=0.5", "model.std=0.5"), "brought")
    x = torch.rand(4, 1, 28, 28)
    assert torch.equal(build_defense(cfg.defense).undefended(x), network((x - 0.5) / 0.5))
    beside = kept(composed("defense=none", f"defense.baseline={folder}"), "brought")
    assert torch.equal(build_baseline(beside.defense)(x).logits, network((x - 0.5) / 0.5))
    for_it = kept(composed(*pretrained, f"defense.baseline={place / 'small.pt'}"), "brought")
    assert torch.equal(build_baseline(for_it.defense)(x).logits, network(x))


def test_the_same_weights_are_the_same_run(composed, plain, weights):
    _, network = weights(5)
    torch.save({"state_dict": {f"module.{k}": v for k, v in network.state_dict().items()}}, plain.parent / "5.pt")
    one = kept(composed("defense=cae", f"defense.undefended_from={plain.parent / '5.pt'}"))
    other = kept(composed("defense=cae", f"defense.undefended_from={weights(5)[0]}"))
    assert one.defense.undefended_from == other.defense.undefended_from
    assert keep_given(one).defense == one.defense
    elsewhere = kept(composed("defense=cae", f"defense.undefended_from={weights(5)[0]}", out="elsewhere"))
    assert elsewhere.defense.undefended_from != one.defense.undefended_from
    assert experiment_values(elsewhere) == experiment_values(one)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["defense=cae", "defense.undefended_from=nothing.pt"], "which is not there"),
        (["defense=cae", "defense.undefended_from={place}"], "is no run folder"),
        (["defense=cae", "model=small_cnn", "defense.undefended_from={plain}"], "are not those of this"),
        (["defense=cae", "model=small_cnn", "defense.undefended_from={file}"], "model=resnet18, or model=own"),
        (
            ["defense=pretrained", "defense.network=${{model}}", "defense.undefended_from={file}"],
            "trains no classifier",
        ),
        (["defense=none", "defense.baseline={plain}", "dataset.num_classes=3"], "knows 10 classes and the data has 3"),
        (["defense=none", "defense.baseline={plain}", "dataset.shape=[3,8,8]"], "does not take images of shape"),
        (["defense=none", "model=small_cnn", "defense.baseline={file}"], "are not those of this"),
    ],
)
def test_what_cannot_be_taken_is_said_in_one_sentence(composed, plain, weights, place, overrides, message):
    names = {"place": place, "plain": plain, "file": weights(0)[0]}
    with pytest.raises(UserError, match=message):
        kept(composed(*(item.format(**names) for item in overrides)))


def test_a_victim_of_its_own_has_no_undefended_classifier(composed, weights):
    cfg = composed("defense=mrr", "+defense@defense.victim=none", f"defense.undefended_from={weights(0)[0]}")
    with pytest.raises(UserError, match="trains no undefended classifier"):
        build_defense(kept(cfg).defense)
    cfg = composed("defense=mrr", "+defense@defense.victim=pretrained", "defense.victim.network=${model}")
    with pytest.raises(UserError, match=r"give its run folder or its weights as defense\.undefended_from"):
        build_defense(cfg.defense)
