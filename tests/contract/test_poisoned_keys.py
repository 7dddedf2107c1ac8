"""No setting of a trainer poisons the store: it is in the key of what it changes, or it is refused."""

from functools import partial

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf, open_dict
from test_keys import DATA

from robustforge.config.instantiate import build
from robustforge.config.limits import check_limits, limits_of, with_threads
from robustforge.data.datamodule import ImageData
from robustforge.defenses.stages import CraftStage, FitStage
from robustforge.fingerprint import key_of
from robustforge.training import craft as crafting
from robustforge.training.keys import describe_stage
from robustforge.types import Threat, UserError

DECIDING = {
    "max_steps": 1, "min_epochs": None, "accumulate_grad_batches": 2, "deterministic": True, "benchmark": True,
    "limit_train_batches": 3, "limit_val_batches": 1, "fast_dev_run": True, "overfit_batches": 2, "min_steps": 5,
    "gradient_clip_algorithm": "value", "check_val_every_n_epoch": 2, "val_check_interval": 0.5,
    "sync_batchnorm": True, "reload_dataloaders_every_n_epochs": 1, "use_distributed_sampler": True,
    "inference_mode": True, "detect_anomaly": True, "plugins": ["x"], "strategy": "fsdp", "precision": "bf16-mixed",
    "no_setting_that_there_is_yet": 1,
}  # fmt: skip
SHOWING = {
    "enable_progress_bar": False, "enable_model_summary": True, "log_every_n_steps": 3, "profiler": "simple",
    "accelerator": "gpu", "strategy": "ddp",
}  # fmt: skip
REFUSED = {
    "max_epochs": 1, "min_epochs": 2, "gradient_clip_val": 0.1, "callbacks": [], "logger": True, "max_time": "00:00:00:30",
    "default_root_dir": "/tmp", "num_sanity_val_steps": 2, "enable_checkpointing": True, "limit_train_batches": 0,
    "max_steps": 0,
}  # fmt: skip


@pytest.fixture(scope="module")
def composed(compose):
    return OmegaConf.create(OmegaConf.to_container(compose("defense=none", "model=lenet"), resolve=True))


def with_setting(composed, key, value):
    cfg = composed.copy()
    with open_dict(cfg):
        OmegaConf.update(cfg, key, value, force_add=True, merge=False)
    return cfg


@pytest.fixture(scope="module")
def key(composed):
    """key(cfg): of the classifier that the run would train."""
    defense = build(composed.defense)
    (stage,) = defense.stages()

    def call(cfg):
        precision = "32-true" if cfg.trainer.precision == "auto" else cfg.trainer.precision
        return key_of(describe_stage(stage, defense, DATA, {}, limits_of(cfg, precision)))

    return call


@pytest.mark.parametrize("setting", [name for name, value in DECIDING.items() if value is not None])
def test_a_setting_that_may_change_the_product_is_in_its_key(composed, key, setting):
    assert key(with_setting(composed, f"trainer.{setting}", DECIDING[setting])) != key(composed)


@pytest.mark.parametrize("setting", SHOWING)
def test_what_is_only_shown_and_where_it_runs_is_not(composed, key, setting):
    assert key(with_setting(composed, f"trainer.{setting}", SHOWING[setting])) == key(composed)


@pytest.mark.parametrize("setting", REFUSED)
def test_what_the_stages_decide_is_refused(composed, setting):
    with pytest.raises(UserError, match=f"trainer.{setting} is "):
        check_limits(with_setting(composed, f"trainer.{setting}", REFUSED[setting]))
    check_limits(composed)


def test_callbacks_that_do_more_than_show_are_in_the_key(composed, key):
    stop = {"_target_": "lightning.pytorch.callbacks.EarlyStopping", "monitor": "x"}
    bar = {"_target_": "lightning.pytorch.callbacks.RichProgressBar"}
    assert key(with_setting(composed, "callbacks.mine", stop)) != key(composed)
    assert key(with_setting(composed, "callbacks.mine", {**stop, "monitor": "y"})) != key(composed)
    assert key(with_setting(composed, "callbacks.mine", bar)) == key(composed)
    assert key(with_setting(composed, "callbacks", {})) == key(composed)


@pytest.mark.usefixtures("quiet_figures")
def test_a_run_with_fewer_steps_does_not_serve_the_one_without(train_run):
    run = ("~debug", "defense=none", "model=lenet", "evaluate=false", "defense.training.epochs=2")
    stages = []
    for name, more in (("short", ["+trainer.max_steps=1"]), ("whole", []), ("again", [])):
        from robustforge.cli import pipeline

        kept = pipeline._stages
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pipeline, "_stages", lambda *a, kept=kept, **k: stages.extend(kept(*a, **k)))
            with pytest.raises(FileNotFoundError, match=r"result\.json"):  # nothing was evaluated
                train_run(*run, *more, name=name)
    assert [stage.reused for stage in stages] == [False, False, True]
    assert stages[0].key != stages[1].key == stages[2].key


# ---- batches and threads ----------------------------------------------------------------------------------------------


def test_crafting_and_calibrating_know_their_batches_and_threads(compose):
    defense = build(compose("defense=mrr").defense)
    assert any(isinstance(stage, CraftStage) for stage in defense.stages()), "mrr crafts"

    def keys(limits, **changed):
        data, found = type(DATA)(**{**vars(DATA), **changed}), {}
        for owner in (*defense.built_on(), defense):
            for stage in owner.stages():
                # of the stage itself: keys of what it uses are left alone
                found[stage.name] = key_of(describe_stage(stage, owner, data, dict.fromkeys(names, "k"), limits))
        return found

    names = [stage.name for owner in (*defense.built_on(), defense) for stage in owner.stages()]
    fits = {stage.name for stage in defense.stages() if isinstance(stage, FitStage) and stage.best is None}
    base = keys({"threads": 1})
    other = keys({"threads": 1}, eval_batch_size=64)
    assert {name for name in base if base[name] == other[name]} == fits
    assert not set(keys({"threads": 2}).items()) & set(base.items())
    limited = keys({"threads": 1, "limit_train_batches": 2})
    crafts = [stage.name for stage in defense.stages() if isinstance(stage, CraftStage)]
    again = keys({"threads": 1, "limit_train_batches": 2}, batch_size=64)
    assert all(limited[name] != again[name] for name in crafts)


class Parity:
    """An attack that depends on the batch: it adds the share of the batch that an image is."""

    name = "parity"

    def __call__(self, surface, x, y, threat, *, index=None, seed=0, threshold=None):
        from robustforge.types import AttackResult

        return AttackResult((x + 1 / len(x)).clamp(max=1), y > 99, y, y)


def test_a_crafted_set_does_not_depend_on_the_number_of_processes(tmp_path, monkeypatch):
    data = ImageData("digits", "digits", (1, 28, 28), 10, limit_train=70, limit_test=8, eval_batch_size=32)
    data.setup()
    from robustforge.defenses.base import classify

    surface = classify(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 10)))["end_to_end"]
    stage = CraftStage("set", lambda: surface, Parity(), Threat("linf", 1.0))
    made = partial(crafting.craft, stage, data, seed=0, device=torch.device("cpu"), quiet=True)
    made(folder=tmp_path / "one" if (tmp_path / "one").mkdir() is None else None)
    (tmp_path / "two").mkdir()
    for rank in (0, 1):
        with monkeypatch.context() as patch:
            patch.setattr(crafting.distributed, "rank", lambda rank=rank: rank)
            patch.setattr(crafting.distributed, "world_size", lambda: 2)
            made(folder=tmp_path / "two")
        done = np.count_nonzero(np.load(tmp_path / "two" / "done.npy"))
        assert done == (70 if rank else 38), "whole batches of 32, 32 and 6, in turn"
    assert np.array_equal(np.load(tmp_path / "one" / "images.npy"), np.load(tmp_path / "two" / "images.npy"))


def test_a_run_keeps_the_number_of_threads_that_it_began_with(composed, tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert with_threads(composed, tmp_path).threads == 3
    (tmp_path / "config.yaml").write_text("threads: 5")
    assert with_threads(composed, tmp_path).threads == 5
    assert with_threads(with_setting(composed, "threads", 2), tmp_path).threads == 2
    assert composed.threads is None
    on_gpu = with_setting(composed, "trainer.accelerator", "gpu")
    assert with_threads(on_gpu, tmp_path / "none").threads is None
    for wrong in (0, -1, 1.5, True, "two"):
        with pytest.raises(UserError, match="threads is .*: give a whole number of 1 or more"):
            with_threads(with_setting(composed, "threads", wrong), tmp_path)
