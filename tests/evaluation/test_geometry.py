"""What is saved for the picture of the class geometry."""

from types import SimpleNamespace

import numpy as np
import torch
from torch import nn

from robustforge.attacks.fgsm import FGSM
from robustforge.data.resident import Split
from robustforge.defenses.base import Defense
from robustforge.evaluation.geometry import save_geometry
from robustforge.types import DefenseOutput, Threat


class Embedding(Defense):
    def __init__(self, features=True):
        super().__init__()
        self.network, self.features = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), features

    def forward(self, x):
        return DefenseOutput(self.network(x))

    def embed(self, x):
        return x.flatten(1) if self.features else None

    def anchors(self):
        return torch.ones(3, 16)


def saved(tmp_path, defense):
    torch.manual_seed(0)
    images = torch.randint(0, 256, (9, 1, 4, 4), dtype=torch.uint8)
    data = SimpleNamespace(test=Split(images, torch.arange(9) % 3))
    path = tmp_path / "geometry.npz"
    save_geometry(defense, data, FGSM(early_stop=False), Threat("linf", 0.1), path, torch.device("cpu"), count=5)
    return images, path


def test_clean_and_attacked_features_of_the_first_images(tmp_path):
    images, path = saved(tmp_path, Embedding())
    with np.load(path) as found:
        np.testing.assert_allclose(found["clean"], images[:5].flatten(1) / 255, rtol=1e-6)
        moved = np.abs(found["attacked"] - found["clean"]).max(1)
        np.testing.assert_allclose(moved, 0.1, rtol=1e-4)
        assert found["label"].tolist() == [0, 1, 2, 0, 1]
        assert found["anchors"].shape == (3, 16)
        assert "fgsm" in str(found["title"])


def test_nothing_for_a_defense_without_features(tmp_path):
    assert not saved(tmp_path, Embedding(features=False))[1].exists()
