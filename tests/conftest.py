"""What the command line's tests share: compose, run in this process, call main() as the shell would."""

import importlib
import json
import logging
import os
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import open_dict

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"  # one worker a core: threads of their own would only wait for each other

ROOT = Path(__file__).resolve().parents[1]
CONF = ROOT / "conf"

# one batch of everything on a handful of digits; what a test wants otherwise comes after
TINY = (
    "debug=fast", "dataset.limit_train=64", "dataset.batch_size=32", "trainer.enable_progress_bar=false",
    "report=false",
)  # fmt: skip


def _composed(*overrides, hydra=False):
    GlobalHydra.instance().clear()
    with initialize_config_dir(config_dir=str(CONF), version_base="1.3"):
        cfg = hydra_compose("train", overrides=list(overrides), return_hydra_config=hydra)
        if not hydra:
            # ${hydra:...} needs its own configuration, which is not part of the composition
            HydraConfig.instance().set_config(
                hydra_compose("train", overrides=list(overrides), return_hydra_config=True)
            )
    return cfg


@pytest.fixture(scope="session")
def compose():
    """compose(*overrides): the composition of train.yaml, and Hydra's own configuration set to match."""
    from robustforge.config.resolvers import register

    register()

    def call(*overrides):
        whole = _composed(*overrides, hydra=True)
        HydraConfig.instance().set_config(whole)
        cfg = whole.copy()
        with open_dict(cfg):
            del cfg["hydra"]
        return cfg

    yield call
    HydraConfig.instance().cfg = None
    GlobalHydra.instance().clear()


@pytest.fixture
def described_stages():
    """described_stages(defense): stage name -> all that its product depends on, but for the products it consumes."""
    from robustforge.data.augment import Augment
    from robustforge.training.keys import describe_stage

    data = SimpleNamespace(fingerprint="data", batch_size=32, eval_batch_size=40, augment=Augment(), seed=0)

    def call(defense):
        stages = [(owner, stage) for owner in (*defense.built_on(), defense) for stage in owner.stages()]
        keys = {stage.name: stage.name for _, stage in stages}
        found = {stage.name: describe_stage(stage, owner, data, keys, {}) for owner, stage in stages}
        return {name: {k: v for k, v in one.items() if k not in ("uses", "seed")} for name, one in found.items()}

    return call


@pytest.fixture
def quiet_figures(monkeypatch):
    """No pictures: matplotlib is most of a tiny run's time, and has its own tests."""
    from robustforge.cli import pictures

    monkeypatch.setattr(pictures, "draw", lambda *_: [])


@pytest.fixture
def train_run(compose, tmp_path):
    """train_run(*overrides, name="run"): a run in this process; its folder, result, records and objective."""
    from robustforge.cli import pipeline

    def call(*overrides, name="run"):
        folder = tmp_path / name
        cfg = compose(*TINY, f"paths.output_dir={tmp_path}", f"paths.store_dir={tmp_path / 'store'}", *overrides)
        objective = pipeline.train(cfg, folder)
        result = json.loads((folder / "result.json").read_text())
        records = pq.read_table(folder / "records.parquet")
        return SimpleNamespace(folder=folder, result=result, records=records, objective=objective, cfg=cfg)

    return call


@pytest.fixture
def tool(monkeypatch, capfd):
    """tool(name, *arguments): a command of the package in this process; exit code, stdout and stderr."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    monkeypatch.setenv("HYDRA_FULL_ERROR", os.environ.get("HYDRA_FULL_ERROR", "0"))

    def call(name, *arguments):
        main = importlib.import_module(f"robustforge.cli.{name}").main
        GlobalHydra.instance().clear()
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
        capfd.readouterr()
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code or 0
        out, err = capfd.readouterr()
        return SimpleNamespace(code=code, out=out, err=err)

    yield call
    # Hydra configured logging onto a terminal that is gone after the test
    root.handlers[:] = handlers
    root.setLevel(level)
    HydraConfig.instance().cfg = None
    GlobalHydra.instance().clear()


@pytest.fixture
def command(tool):
    """command(*arguments): ``train.py <arguments>`` in this process; exit code, stdout and stderr."""
    return partial(tool, "train")


@pytest.fixture(autouse=True)
def _loggers_stay_on():
    """Libraries that reconfigure logging switch existing loggers off; the next test of this worker wants them on."""
    for logger in list(logging.root.manager.loggerDict.values()):
        if isinstance(logger, logging.Logger) and logger.name.startswith("robustforge"):
            logger.disabled = False
            logger.propagate = True
    logging.disable(logging.NOTSET)
