"""Figs. 4 and 5 of modular robust redundancy, on networks whose features are known."""

from types import SimpleNamespace

import pytest
import torch

from robustforge.attacks.core.surface import end_to_end
from robustforge.attacks.fgsm import FGSM
from robustforge.data.resident import Split
from robustforge.defenses.figures import Scene
from robustforge.defenses.mrr.figures import mrr_figures
from robustforge.types import DefenseOutput, Threat


class Halves(torch.nn.Module):
    """Class 1 where the upper half is lighter than the lower one; features are both brightnesses and their product."""

    def forward(self, x):
        upper, lower = x[:, 0, :2].flatten(1).mean(1), x[:, 0, 2:].flatten(1).mean(1)
        return torch.stack([lower, upper], 1), [torch.stack([upper, lower, upper * lower], 1)]


@pytest.fixture
def scene():
    x = torch.rand(60, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    victim = Halves()
    split = Split((x * 255).byte(), victim(x)[0].argmax(1))
    data = SimpleNamespace(test=split, train=split, num_classes=2)
    return Scene(data, FGSM(early_stop=False), Threat("linf", 0.1), torch.device("cpu"))


@pytest.fixture
def system():
    victim = Halves()

    def respond(x):
        return DefenseOutput(victim(x)[0], x[:, 0, 0, 0])

    return SimpleNamespace(count=1, victim=lambda x: victim(x)[0], respond=respond)


def test_distances_are_to_the_center_of_the_class_that_the_victim_answers(scene, system):
    surface = end_to_end(system.respond, Halves())
    figures = mrr_figures(system, surface, {"victim": Halves(), "defender": Halves()})
    assert set(figures) == {"density", "hard"}
    picture = figures["density"](scene)
    x, y = scene.images(300)
    features = Halves()(x)[1][0].double()
    centers = torch.stack([features[y == number].mean(0) for number in range(2)])
    label = system.victim(x).argmax(1)
    expected = (features - centers[label]).norm(dim=1)[label == y]
    torch.testing.assert_close(picture.arrays["distance_0"], expected)
    turned = (label == y) & (system.victim(scene.attacked(surface, x, y)).argmax(1) != y)
    assert picture.arrays["attacked_distance_1"].shape == (int(turned.sum()),)
    assert picture.arrays["points_0"].shape == (int((label == y).sum()), 3)
    near, far = picture.arrays["distance_0"], picture.arrays["attacked_distance_0"]
    wins = (far[:, None] > near[None]).double().mean().item()
    assert picture.found["distance_auroc_victim"] == pytest.approx(wins)


def test_hard_images_are_turned_and_least_at_risk(scene, system):
    surface = end_to_end(system.respond, Halves())
    picture = mrr_figures(system, surface, {})["hard"](scene)
    x, y = scene.images(300)
    attacked = scene.attacked(surface, x, y)
    turned = (system.victim(x).argmax(1) == y) & (system.victim(attacked).argmax(1) != y)
    least = attacked[turned][:, 0, 0, 0].sort().values[:8]
    torch.testing.assert_close(picture.arrays["risk"], least)
    assert (picture.arrays["prediction"] != picture.arrays["label"]).all()
