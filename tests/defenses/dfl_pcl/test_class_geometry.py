"""What is kept for the picture of the class geometry."""

from types import SimpleNamespace

import numpy as np
import torch
from torch import nn

from robustforge.attacks.core.surface import end_to_end
from robustforge.attacks.fgsm import FGSM
from robustforge.data.resident import Split
from robustforge.defenses.dfl_pcl.figures import dfl_pcl_figures
from robustforge.defenses.figures import Scene
from robustforge.types import DefenseOutput, Threat


def test_clean_and_attacked_features_of_the_first_images_with_anchors_where_there_are_any(tmp_path):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    surface = end_to_end(lambda x: DefenseOutput(network(x)), network)
    images = torch.randint(0, 256, (320, 1, 4, 4), dtype=torch.uint8)
    data = SimpleNamespace(test=Split(images, torch.arange(320) % 3))
    scene = Scene(data, FGSM(early_stop=False), Threat("linf", 0.1), torch.device("cpu"))
    for anchors in (torch.ones(3, 16), None):
        space = SimpleNamespace(embed=lambda x: x.flatten(1), anchors=anchors)
        dfl_pcl_figures(space, surface)["geometry"](scene).save(tmp_path / "geometry.npz")
        with np.load(tmp_path / "geometry.npz") as found:
            assert str(found["kind"]) == "scatter"
            np.testing.assert_allclose(found["clean"], images[:300].flatten(1) / 255, rtol=1e-6)
            moved = np.abs(found["attacked"] - found["clean"]).max(1)
            np.testing.assert_allclose(moved, 0.1, rtol=1e-4)
            assert found["label"].tolist() == [k % 3 for k in range(300)]
            assert str(found["title"]) == "fgsm on end_to_end, linf 0.1"
            assert ("anchors" in found) is (anchors is not None)
