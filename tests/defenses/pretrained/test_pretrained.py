"""Networks trained elsewhere: weights in every wrapping, nothing trained, everything reported."""

import json
import logging
import sys
from functools import partial

import owned
import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import resnet18

from robustforge.defenses.pretrained import Pretrained
from robustforge.defenses.pretrained.weights import load_weights
from robustforge.types import UserError

X = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def network():
    return owned.trained(1)


@pytest.fixture
def state(network):
    return {name: value.clone() for name, value in network.state_dict().items()}


def prefixed(state, prefix):
    return {f"{prefix}{name}": value for name, value in state.items()}


@pytest.mark.parametrize(
    ("wrap", "stripped"),
    [
        (lambda state: state, ""),
        (lambda state: {"state_dict": state, "epoch": 3}, ""),
        (lambda state: {"model": state, "best": 0.5}, ""),
        (lambda state: prefixed(state, "module."), "module."),
        (lambda state: {"state_dict": prefixed(state, "model.")}, "model."),
        (lambda state: prefixed(state, "module._orig_mod."), "module._orig_mod."),
    ],
    ids=["plain", "state_dict", "model", "module.", "lightning", "compiled"],
)
def test_weights_in_every_wrapping(network, state, tmp_path, caplog, wrap, stripped):
    torch.save(wrap(state), tmp_path / "net.pt")
    with caplog.at_level(logging.INFO, "robustforge"):
        defense = Pretrained(owned.Small, str(tmp_path / "net.pt"))
    assert torch.equal(defense.eval()(X).logits, network(X))
    assert (f"the prefix '{stripped}' was stripped" in caplog.text) == bool(stripped)


def test_safetensors(network, state, tmp_path):
    save_file(prefixed(state, "module."), tmp_path / "net.safetensors")
    assert torch.equal(Pretrained(owned.Small, str(tmp_path / "net.safetensors")).eval()(X).logits, network(X))


def test_a_network_with_a_part_called_model_keeps_its_names(tmp_path):
    class Holding(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = torch.nn.Linear(3, 2)

    saved = Holding()
    torch.save(saved.state_dict(), tmp_path / "net.pt")
    loaded = Holding()
    load_weights(loaded, tmp_path / "net.pt")
    assert torch.equal(loaded.model.weight, saved.model.weight)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: {name: v for name, v in state.items() if "6" not in name}, "lacks body.6.weight, body.6.bias"),
        (lambda state: {**state, "head.bias": torch.zeros(2)}, "has besides head.bias"),
        (lambda state: {**state, "body.6.bias": torch.zeros(3)}, r"another shape of body.6.bias \(3,\) for \(10,\)"),
        (lambda state: {"weights": [1, 2]}, "the keys weights and no state dictionary"),
        (lambda state: torch.zeros(3), "a Tensor and no state dictionary"),
        (lambda state: {}, "no state dictionary"),
    ],
    ids=["missing", "unexpected", "misshapen", "other keys", "tensor", "empty"],
)
def test_weights_that_do_not_fit_are_named(state, tmp_path, change, message):
    torch.save(change(state), tmp_path / "net.pt")
    with pytest.raises(UserError, match=message):
        Pretrained(owned.Small, str(tmp_path / "net.pt"))


def test_files_that_are_no_weights(network, tmp_path):
    with pytest.raises(UserError, match="There is no file"):
        Pretrained(owned.Small, str(tmp_path / "absent.pt"))
    torch.save(network, tmp_path / "whole.pt")
    with pytest.raises(UserError, match="loading it would run code: save it again with"):
        Pretrained(owned.Small, str(tmp_path / "whole.pt"))
    for name in ("junk.pt", "junk.safetensors"):
        (tmp_path / name).write_bytes(b"junk")
        with pytest.raises(UserError, match=r"cannot be read|would run code"):
            Pretrained(owned.Small, str(tmp_path / name))


def test_counters_of_old_files_may_be_missing(network, state, tmp_path):
    del state["body.1.num_batches_tracked"]
    torch.save(state, tmp_path / "net.pt")
    assert torch.equal(Pretrained(owned.Small, str(tmp_path / "net.pt")).eval()(X).logits, network(X))


def test_torchvision_normalization_and_places():
    defense = Pretrained(partial(resnet18, num_classes=7), mean=[0.5] * 3, std=[0.25] * 3).eval()
    x = torch.rand(2, 3, 32, 32)
    assert defense.stages() == []
    assert torch.equal(defense(x).logits, defense.network.function((x - 0.5) / 0.25))
    assert defense(x).logits.shape == (2, 7)
    with pytest.raises(UserError, match="say where the logits are"):
        Pretrained(owned.Tuple)(X)
    assert Pretrained(owned.Tuple, output=0)(X).logits.shape == (4, 10)
    with pytest.raises(UserError, match="one value an image"):
        Pretrained(owned.OneLogit)(X)


def test_initial_weights_follow_from_the_seed():
    one, two, other = (Pretrained(owned.Small, seed=seed).network.function for seed in (1, 1, 2))
    assert torch.equal(one.body[0].weight, two.body[0].weight)
    assert not torch.equal(one.body[0].weight, other.body[0].weight)


def test_a_run_trains_nothing_and_can_be_attacked_again(network, state, tmp_path, train_run, monkeypatch, capfd):
    torch.save(state, tmp_path / "net.pt")
    run = train_run(
        "defense=pretrained", "defense.network._target_=owned.Small", f"defense.weights={tmp_path / 'net.pt'}",
        "dataset.shape=[1,8,8]", "attack.steps=2", "protocol.suites.all.attacks.bim.steps=2",
    )  # fmt: skip
    assert run.result["stages"] == []
    assert run.records.num_rows
    assert (run.folder / "figures" / "accuracy.png").exists()
    from robustforge.cli.evaluate import main

    for extra, code in (([], 2), (["trust=[owned]"], 0)):
        monkeypatch.setattr(
            sys, "argv", ["evaluate.py", f"run={run.folder}", "protocol=smoke", "protocol.n_test=4", "attack.steps=1",
                          "progress=false", *extra],
        )  # fmt: skip
        stopped = 0
        try:
            main()
        except SystemExit as stop:
            stopped = stop.code or 0
        assert stopped == code
        assert ("add trust=owned" in capfd.readouterr().err) == bool(code)
    (result,) = (run.folder / "evaluations").glob("*/result.json")
    assert json.loads(result.read_text())["n_test"] == 4
    assert torch.equal(torch.load(tmp_path / "net.pt")["body.1.running_mean"], state["body.1.running_mean"])
