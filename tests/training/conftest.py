"""Digits, a quiet trainer and a runner on them."""

from dataclasses import fields
from types import SimpleNamespace

import lightning.pytorch as pl
import pytest
import torch

from robustforge.data.datamodule import ImageData
from robustforge.data.sources import Arrays, load_arrays
from robustforge.training.runner import StageRunner
from robustforge.training.store import ArtifactStore


@pytest.fixture(scope="session")
def arrays():
    """The digits, read once."""
    return load_arrays("digits", "digits", None, False, shape=(1, 28, 28), num_classes=10)


@pytest.fixture
def make_data(arrays, monkeypatch):
    """make_data(**changed): 96 digits in batches of 32, set up."""

    def load(*_):
        return Arrays(**{field.name: getattr(arrays, field.name).copy() for field in fields(arrays)})

    monkeypatch.setattr(ImageData, "read", load)

    def call(**changed):
        data = ImageData(**{
            "name": "digits", "kind": "digits", "shape": (1, 28, 28), "num_classes": 10, "limit_train": 96,
            "limit_test": 32, "batch_size": 32, "eval_batch_size": 40, **changed,
        })  # fmt: skip
        data.setup()
        return data

    return call


@pytest.fixture
def run(tmp_path, make_data):
    """run(defense, store="store", callbacks=(), limits={}, **data): reports, the trained defense, the store, the fits.

    A resume point after every epoch, unless ``every`` says otherwise.

    A fresh data module and store object each time, as in a new process.
    """

    def call(defense, store="store", callbacks=(), limits=None, only_reuse=False, every=0.0, **data):
        fits = []

        def trainer(stage, epochs, extra, clip):
            fits.append(stage)
            return pl.Trainer(
                max_epochs=epochs, accelerator="cpu", devices=1, logger=False, callbacks=[*callbacks, *extra],
                gradient_clip_val=clip, enable_progress_bar=False, enable_model_summary=False,
                enable_checkpointing=False, use_distributed_sampler=False, num_sanity_val_steps=0,
                inference_mode=False, default_root_dir=tmp_path, **(limits or {}),
            )  # fmt: skip

        shelf = ArtifactStore(tmp_path / store)
        where = torch.device("cpu"), True, only_reuse
        runner = StageRunner(make_data(**data), shelf, trainer, limits or {}, *where, resume_every=every)
        reports = runner.run(defense)
        return SimpleNamespace(reports=reports, defense=defense, store=shelf, fits=fits, data=runner.data)

    return call


@pytest.fixture
def weights():
    """weights(module): a comparable copy of its state."""
    return lambda module: {name: value.clone() for name, value in module.state_dict().items()}
