"""What once ended in a traceback after the work was done: results come before pictures, refusals before training."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

import robustforge as rf
from robustforge.cli import evaluate, pictures, pipeline
from robustforge.evaluation import figures
from robustforge.types import UserError

CONF = str(Path(__file__).resolve().parents[2] / "conf")
QUICK = ("defense=none", "attack=none", "protocol.suites.all.attacks={fgsm: {}}")


@pytest.fixture
def archive(tmp_path):
    """archive(C, test=4): overrides for a few images of C channels, 16 x 16."""

    def call(channels, test=4):
        rng = np.random.default_rng(0)
        sizes = {"train": 60, "test": test}
        arrays = {f"x_{k}": rng.integers(0, 256, (n, channels, 16, 16), dtype=np.uint8) for k, n in sizes.items()}
        arrays |= {f"y_{k}": np.arange(n) % 3 for k, n in sizes.items()}
        np.savez(tmp_path / "mine.npz", **arrays)
        shape, path = f"dataset.shape=[{channels},16,16]", f"dataset.path={tmp_path / 'mine.npz'}"
        return (*QUICK, "model=small_cnn", "dataset=npz", path, shape, "dataset.num_classes=3")

    return call


@pytest.mark.parametrize("channels", [2, 5])
def test_images_of_any_number_of_channels_have_results_and_pictures(train_run, archive, channels, caplog):
    run = train_run(*archive(channels))
    assert run.result["n_test"] == 4
    assert (run.folder / "figures" / "gallery.png").exists()
    assert "is left out" not in caplog.text


def test_pictures_that_fail_lose_nothing_else(train_run, monkeypatch, caplog):
    def fails(*_, **__):
        raise RuntimeError("no ink")

    for module, name in ((figures, "gallery"), (pictures, "accuracy_figure"), (pictures, "save_budgets")):
        monkeypatch.setattr(module, name, fails)
    run = train_run(*QUICK, "model=lenet")
    assert run.objective == run.result["objective"]
    for picture in ("gallery", "accuracy", "budgets"):
        assert f"figure {picture} is left out: no ink" in caplog.text


def test_results_are_there_when_pictures_are_begun(train_run, monkeypatch, tmp_path):
    def killed(*_):
        assert {"result.json", "result.md", "records.parquet"} <= set(os.listdir(tmp_path / "run"))
        raise KeyboardInterrupt

    monkeypatch.setattr(pictures, "save_arrays", killed)
    with pytest.raises(KeyboardInterrupt):
        train_run(*QUICK, "model=lenet")
    assert json.loads((tmp_path / "run" / "result.json").read_text())["cells"]


@pytest.mark.usefixtures("quiet_figures")
def test_pictures_of_a_generative_defense_that_fail_lose_nothing_else(train_run, monkeypatch, caplog):
    from robustforge.defenses.gmvae import figures as drawn

    def fails(*_):
        raise ValueError("no covariance")

    monkeypatch.setattr(drawn, "frechet_distance", fails)
    run = train_run("defense=gmvae", *QUICK[1:], "model=lenet")
    assert run.result["defense"] == "gmvae"
    assert "figure generation is left out: no covariance" in caplog.text


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model=small_cnn", "model.batch_norm=true", "dataset.batch_size=1"], "has batch normalization"),
        (["model=lenet", "trainer.precision=bf16-true"], "weights are kept in float32 here: give one of auto, 32-true"),
        (["model=lenet", "trainer.precision=16-true"], "weights are kept in float32 here"),
        (["model=lenet", "trainer.precision=64-true"], "weights are kept in float32 here"),
        (["model=lenet", "dataset.shape=[32,32,3]"], r"shape.*\[3, ?32, ?32\]"),
        (["defense=pretrained", "defense.network=${model}", "dataset.shape=[32,32,3]"], r"shape.*\[3, ?32, ?32\]"),
    ],
)
def test_what_cannot_be_trained_or_attacked_is_refused_before(train_run, tmp_path, overrides, message):
    with pytest.raises(UserError, match=message) as refused:
        train_run(*QUICK, *overrides)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "run" / "result.json").exists()
    assert not list((tmp_path / "store").glob("undefended-*"))


@pytest.mark.usefixtures("quiet_figures")
def test_single_images_train_networks_without_batch_statistics(train_run):
    assert train_run(*QUICK, "model=lenet", "dataset.batch_size=1").result["cells"]


def test_no_test_image_is_refused_before_training(train_run, archive, tmp_path):
    with pytest.raises(UserError, match="x_test"):
        train_run(*archive(1, test=0))
    assert not list((tmp_path / "store").glob("undefended-*"))


def test_networks_that_write_into_their_input_have_the_records_of_those_that_do_not():
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 4))
    x, y = torch.rand(12, 1, 8, 8), torch.arange(12) % 4
    reports = [
        rf.evaluate(model, (x, y), eps=0.1, protocol="smoke", progress=False)
        for model in (lambda x: network(x.sub_(0.5)), lambda x: network(x - 0.5))
    ]
    for name in reports[0].records.column_names:
        one, other = (report.records[name].to_numpy(zero_copy_only=False) for report in reports)
        assert np.array_equal(one, other, equal_nan=one.dtype.kind == "f"), name


@pytest.mark.usefixtures("quiet_figures")
def test_a_run_is_evaluated_from_any_folder(compose, tmp_path, monkeypatch):
    """Trained with the defaults, whose places are relative; evaluated from elsewhere, and again once it was moved."""
    monkeypatch.delenv("ROBUSTFORGE_DATA", raising=False)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    monkeypatch.chdir(tmp_path / "a")
    tiny = ("debug=fast", "dataset.limit_train=64", "dataset.batch_size=32", "trainer.enable_progress_bar=false")
    pipeline.train(compose(*QUICK, *tiny, "model=lenet", "evaluate=false"), Path("outputs/none_digits/default"))
    monkeypatch.chdir(tmp_path / "b")

    def evaluated(run):
        GlobalHydra.instance().clear()
        with initialize_config_dir(config_dir=CONF, version_base="1.3"):
            cfg = hydra_compose("evaluate", [f"run={run}", "attack=none", "protocol=clean", "progress=false"])
        evaluate._evaluate(cfg)
        return list((Path(run) / "evaluations").glob("*/result.json"))

    assert len(evaluated(tmp_path / "a" / "outputs" / "none_digits" / "default")) == 1
    (tmp_path / "a").rename(tmp_path / "c")
    (tmp_path / "c" / "outputs" / "none_digits" / "default" / "evaluations").rename(tmp_path / "before")
    assert len(evaluated(tmp_path / "c" / "outputs" / "none_digits" / "default")) == 1
    monkeypatch.chdir(tmp_path / "c")
    (tmp_path / "c" / "outputs" / "none_digits" / "default" / "evaluations").rename(tmp_path / "then")
    assert len(evaluated("outputs/none_digits/default")) == 1
    assert not os.listdir(tmp_path / "b"), "nothing was written where the command was given"
