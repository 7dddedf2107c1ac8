"""Devices that are not there, and settings that do not go together: one sentence before anything is made."""

import pytest
import torch
from omegaconf import OmegaConf

from robustforge.config.devices import STRATEGIES, Devices, check_launch, devices_of
from robustforge.config.restore import processes_of
from robustforge.types import UserError

CPU = {"accelerator": "cpu", "devices": 1, "num_nodes": 1, "strategy": "auto"}


@pytest.fixture
def gpus(monkeypatch):
    """gpus(n): a machine with that many."""

    def call(count):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)

    return call


@pytest.mark.parametrize(
    ("asked", "here", "found"),
    [
        ({}, 0, Devices(False, 1)),
        ({"devices": 3}, 4, Devices(False, 3)),
        ({"devices": "auto"}, 4, Devices(False, 1)),
        ({"devices": -1}, 0, Devices(False, 1)),
        ({"accelerator": "auto"}, 0, Devices(False, 1)),
        ({"accelerator": "auto"}, 2, Devices(True, 1)),
        ({"accelerator": "gpu", "devices": -1}, 8, Devices(True, 8)),
        ({"accelerator": "gpu", "devices": "auto"}, 2, Devices(True, 2)),
        ({"accelerator": "cuda", "devices": [1, 3]}, 4, Devices(True, 2, 1, (1, 3))),
        ({"accelerator": "gpu", "devices": [0], "num_nodes": 2}, 1, Devices(True, 1, 2, (0,))),
        ({"accelerator": "gpu", "devices": 4, "strategy": STRATEGIES[-1]}, 4, Devices(True, 4)),
    ],
)
def test_what_is_there_is_taken(gpus, asked, here, found):
    gpus(here)
    assert devices_of({**CPU, **asked}) == found


@pytest.mark.parametrize(
    ("asked", "here", "words"),
    [
        ({"accelerator": "cud"}, 1, ["'cud'", "cpu, gpu, auto"]),
        ({"accelerator": None}, 1, ["None"]),
        ({"accelerator": "gpu"}, 0, ["no GPU", "trainer=cpu"]),
        ({"accelerator": "gpu", "devices": 3}, 2, ["trainer.devices is 3", "has 2"]),
        ({"accelerator": "gpu", "devices": [0, 2]}, 2, ["[0, 2]", "from 0 to 1"]),
        ({"accelerator": "gpu", "devices": [0, 0]}, 2, ["[0, 0]"]),
        ({"accelerator": "gpu", "devices": []}, 2, ["[]"]),
        ({"devices": 0}, 0, ["trainer.devices is 0"]),
        ({"devices": -2}, 0, ["trainer.devices is -2"]),
        ({"devices": True}, 0, ["trainer.devices is True"]),
        ({"devices": 1.5}, 0, ["1.5"]),
        ({"devices": "two"}, 0, ["two"]),
        ({"devices": [0]}, 0, ["[0]"]),
        ({"devices": None}, 0, ["None"]),
        ({"num_nodes": 0}, 0, ["trainer.num_nodes is 0"]),
        ({"num_nodes": "many"}, 0, ["many"]),
        ({"sync_batchnorm": True}, 0, ["sync_batchnorm needs GPUs"]),
        ({"strategy": "dpp"}, 0, ["'dpp'", "ddp"]),
        ({"strategy": "fsdp"}, 2, ["'fsdp'"]),
        ({"strategy": "ddp_spawn"}, 2, ["'ddp_spawn'"]),
    ],
)
def test_what_is_not_there_is_said(gpus, asked, here, words):
    gpus(here)
    with pytest.raises(UserError) as said:
        devices_of({**CPU, **asked})
    assert all(word in str(said.value) for word in words), said.value


def test_processes_that_nobody_starts_are_not_waited_for(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with pytest.raises(UserError, match=r"torchrun .--nnodes=2 --nproc-per-node=4"):
        check_launch(Devices(True, 4, 2))
    check_launch(Devices(True, 4))
    monkeypatch.setenv("WORLD_SIZE", "8")
    check_launch(Devices(True, 4, 2))
    with pytest.raises(UserError, match=r"8 processes were started, and .* is 1"):
        check_launch(Devices(False, 1))


@pytest.mark.parametrize(
    ("argument", "word"),
    [
        ("trainer.accelerator=cud", "cud"), ("trainer=gpu", "no GPU"), ("trainer=ddp", "no GPU"),
        ("trainer.devices=0", "0"), ("trainer.devices=[0]", "[0]"), ("trainer.num_nodes=2", "torchrun"),
        ("trainer.strategy=dpp", "dpp"), ("trainer.precision=17", "17"), ("paths.output_dir=null", "null"),
        ("paths.store_dir=null", "null"), ("hydra.run.dir=null", "null"), ("paths.output_dir=''", "empty"),
    ],
)  # fmt: skip
def test_one_sentence_before_a_folder_is_made(command, tmp_path, monkeypatch, gpus, argument, word):
    gpus(0)
    monkeypatch.chdir(tmp_path)
    answer = command("defense=none", "model=lenet", argument)
    assert answer.code == 2
    (line,) = answer.err.strip().splitlines()
    assert line.startswith("Error: ")
    assert word in line
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    assert "precision" in argument or not list(tmp_path.iterdir())


@pytest.mark.parametrize("argument", ["paths.output_dir=null", "hydra.sweep.dir=null"])
def test_a_sweep_into_nowhere_is_refused_too(command, tmp_path, monkeypatch, argument):
    monkeypatch.chdir(tmp_path)
    answer = command("-m", "seed=0,1", argument)
    assert (answer.code, list(tmp_path.iterdir())) == (2, [])
    assert argument.partition("=")[0] in answer.err


@pytest.mark.parametrize(("trainer", "count"), [({}, 1), ({"devices": 2, "num_nodes": 3}, 6), ({"devices": [1, 3]}, 2)])
def test_a_run_says_in_how_many_processes_it_was_trained(trainer, count):
    assert processes_of(OmegaConf.create({"trainer": trainer})) == count
