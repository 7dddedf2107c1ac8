"""The digest of a run: it changes with what its numbers depend on, and with nothing else."""

import pytest
from omegaconf import OmegaConf, open_dict

from robustforge.config import dependence
from robustforge.config.dependence import digest_of, digest_today

RUN = ["defense=none", "dataset=digits"]


@pytest.fixture(scope="module")
def usual():
    return digest_today(RUN)


def test_a_command_and_its_composition_have_one_digest(usual, compose):
    assert digest_of(compose(*RUN)) == usual
    assert len(usual) == 16


@pytest.mark.parametrize(
    "change", ["seed=1", "defense.training.epochs=3", "protocol.n_test=5", "optimizer.lr=0.5", "attack.steps=7"]
)
def test_settings_that_decide_numbers_change_it(change, usual):
    assert digest_today([*RUN, change]) != usual


@pytest.mark.parametrize(
    "change",
    ["paths.data_dir=/elsewhere", "threads=3", "report=false", "trainer.enable_progress_bar=false", "tags=[a]"],
)
def test_what_only_shows_and_the_machine_do_not(change, usual):
    assert digest_today([*RUN, change]) == usual


def test_a_setting_that_is_off_counts_as_none(usual, compose):
    cfg = compose(*RUN)
    with open_dict(cfg):
        cfg.defense.later = None
        cfg.protocol.later = OmegaConf.create({"inside": False, "list": []})
    assert digest_of(cfg) == usual
    with open_dict(cfg):
        cfg.protocol.later.inside = True
    assert digest_of(cfg) != usual


def test_the_preset_counts(compose):
    assert digest_today(["defense=cae", "dataset=digits"]) != digest_of(compose("defense=cae", "dataset=digits"))


@pytest.mark.parametrize(
    ("module", "counts"),
    [
        ("robustforge.defenses.none", True),
        ("robustforge.attacks.pgd", True),
        ("robustforge.defenses.undefended", True),
        ("robustforge.defenses.memdef", False),
        ("robustforge.attacks.square", False),
    ],
)
def test_the_source_of_what_it_uses_counts(module, counts, usual, monkeypatch):
    from robustforge import fingerprint

    real = fingerprint.source_hash
    monkeypatch.setattr(fingerprint, "source_hash", lambda name: "changed" if name == module else real(name))
    dependence._sources.cache_clear()
    try:
        assert (digest_today(RUN) != usual) == counts
    finally:
        dependence._sources.cache_clear()


def test_the_machine_is_named_with_its_threads(monkeypatch):
    import torch

    from robustforge.config import run_folder

    monkeypatch.setattr(run_folder, "cpu_name", lambda: "a processor")
    assert run_folder.machine(torch.device("cpu"), 2) == "a processor, 2 threads"
    assert run_folder.machine(torch.device("cpu"), 1) == "a processor, 1 thread"
