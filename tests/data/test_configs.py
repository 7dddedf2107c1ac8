"""Every file of conf/dataset builds its data module."""

from pathlib import Path

import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from robustforge.data.augment import Augment
from robustforge.data.datamodule import ImageData

FILES = sorted((Path(__file__).parents[2] / "conf" / "dataset").glob("*.yaml"))
OWN = {"path": "own.npz", "shape": [1, 28, 28], "num_classes": 10}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_config_builds(file):
    config = OmegaConf.create({"dataset": OmegaConf.load(file), "paths": {"data_dir": ""}, "seed": 7})
    if OmegaConf.missing_keys(config):
        for key, value in OWN.items():
            OmegaConf.update(config, f"dataset.{key}", value)
    data = instantiate(config.dataset)
    assert isinstance(data, ImageData)
    assert isinstance(data.augment, Augment)
    assert data.name == file.stem
    assert data.seed == 7
    assert len(data.mean) == len(data.std) == data.shape[0]
    assert 0 < data.eps <= 0.3


def test_all_promised_sets_are_there():
    promised = {
        "digits",
        "mnist",
        "fashion_mnist",
        "cifar10",
        "svhn",
        "coil100",
        "celeba",
        "imagenet_folder",
        "npz",
        "imagefolder",
    }
    assert promised <= {file.stem for file in FILES}
