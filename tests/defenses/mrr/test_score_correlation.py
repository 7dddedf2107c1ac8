"""Correlations of detectors' scores against numpy, and the figure that shows them."""

from types import SimpleNamespace

import numpy as np
import torch

from robustforge.attacks.core.surface import end_to_end
from robustforge.attacks.fgsm import FGSM
from robustforge.data.resident import Split
from robustforge.defenses.figures import Scene
from robustforge.defenses.mrr.figures import mrr_figures, pearson
from robustforge.types import DefenseOutput, Threat


def test_pearson_is_numpys_and_a_constant_correlates_with_nothing():
    scores = torch.rand(50, 3, generator=torch.Generator().manual_seed(0))
    np.testing.assert_allclose(pearson(scores).numpy(), np.corrcoef(scores.numpy().T), atol=1e-6)
    opposite = torch.stack([scores[:, 0], -2 * scores[:, 0], torch.ones(50)], 1)
    found = pearson(opposite)
    assert found[0, 1] < -0.999
    assert found[2].abs().max() < 1e-6


def test_the_figure_is_of_clean_and_attacked_images(model, batch):
    network = model().eval()
    scene = Scene(
        SimpleNamespace(test=Split((batch.x * 255).byte(), batch.y)),
        FGSM(early_stop=False), Threat("linf", 0.1), torch.device("cpu"),
    )  # fmt: skip
    surface = end_to_end(lambda x: DefenseOutput(network(x)), network)
    system = SimpleNamespace(count=3, judged=lambda x: (None, network(x)[:, :3]))
    assert set(mrr_figures(system, surface, {})) == {"correlation", "hard"}
    assert mrr_figures(SimpleNamespace(count=0), surface, {}) == {}
    picture = mrr_figures(system, surface, {})["correlation"](scene)
    x, y = scene.images(300)
    for name, images in {"clean": x, "attacked": scene.attacked(surface, x, y)}.items():
        matrix = np.corrcoef(network(images)[:, :3].detach().numpy().T)
        np.testing.assert_allclose(picture.arrays[name], matrix, atol=1e-5)
        mean = (matrix.sum() - 3) / 6
        np.testing.assert_allclose(picture.found[f"score_correlation_{name}"], mean, atol=1e-5)
