"""Samples and their distance to the data."""

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torch import nn

from robustforge.attacks.core.surface import end_to_end
from robustforge.attacks.fgsm import FGSM
from robustforge.data.datamodule import ImageData
from robustforge.defenses.figures import Scene
from robustforge.defenses.gmvae.figures import generation
from robustforge.defenses.gmvae.frechet import features, frechet_distance, inception_distance
from robustforge.defenses.gmvae.pairs import converged, reconstructions
from robustforge.nn.small_cnn import small_cnn
from robustforge.types import DefenseOutput, Threat, UserError


def test_frechet_distance_by_scipy():
    generator = torch.Generator().manual_seed(0)
    one = torch.randn(50, 6, generator=generator) @ torch.randn(6, 6, generator=generator)
    other = torch.randn(40, 6, generator=generator) + 1
    a, b = one.double().numpy(), other.double().numpy()
    cov_a, cov_b = np.cov(a.T), np.cov(b.T)
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(cov_a + cov_b - 2 * sqrtm(cov_a @ cov_b).real)
    assert frechet_distance(one, other) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(one, one) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(one, other) == pytest.approx(frechet_distance(other, one), rel=1e-6)
    assert frechet_distance(one, one + 3) == pytest.approx(9 * 6, rel=1e-6)
    assert frechet_distance(one[:3], other) > 0, "fewer images than features is no obstacle"
    with pytest.raises(ValueError, match="two images"):
        frechet_distance(one[:1], other)


def test_features_are_what_the_last_dense_layer_sees():
    network = small_cnn((1, 28, 28), 10, (0.3,), (0.3,), (4, 8), 16).eval()
    x = torch.rand(3, 1, 28, 28)
    seen = features(network, x)
    assert seen.shape == (3, 16)
    torch.testing.assert_close(network[-1](seen.float()), network(x))
    assert not network[-1]._forward_pre_hooks
    with pytest.raises(UserError, match="dense"):
        features(nn.Conv2d(1, 1, 3), x)


def honest(data):
    """Draws training images of the class asked for."""

    def draw(labels, index, seed):
        rows = torch.stack([(data.train.labels == y).nonzero()[0, 0] for y in labels])
        return data.train.images[rows].float() / 255

    return draw


def noise(labels, index, seed):
    return torch.rand(len(labels), 1, 28, 28, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def scene():
    data = ImageData("digits", "digits", (1, 28, 28), 10, limit_test=50)
    data.setup()
    return Scene(data, FGSM(), Threat("linf", 0.1), torch.device("cpu"))


def shown(scene, draw, **changes):
    torch.manual_seed(0)
    network = small_cnn((1, 28, 28), 10, (0.3,), (0.3,), (4, 8), 16).eval()
    return generation(scene, draw, lambda x: 1 - x, network, **changes)


def test_samples_are_shown_and_measured(scene):
    data = scene.data
    picture = shown(scene, honest(data), count=300)
    assert picture.kind == "samples"
    found, random = picture.found, shown(scene, noise, count=300).found
    assert set(found) == {"frechet_distance", "frechet_floor"}
    assert found["frechet_floor"] < found["frechet_distance"] < random["frechet_distance"]
    arrays = {name: value.numpy() for name, value in picture.arrays.items()}
    assert arrays["samples"].shape == (10, 8, 1, 28, 28)
    np.testing.assert_allclose(arrays["rebuilt"], 1 - arrays["clean"], atol=1e-6)
    first = data.train.images[(data.train.labels == 4).nonzero()[0, 0]].numpy() / 255
    np.testing.assert_allclose(arrays["samples"][4, 0], first, atol=1e-6)


class Untrained:
    """A selective classifier's parts: encodes to the first ten pixels, decodes to a gray image of the first."""

    def encoder(self, x):
        return x.flatten(1)[:, 300:310]

    encode = encoder

    def decoder(self, z):
        return z[:, :1, None, None].expand(-1, 1, 28, 28)


def test_pairs_are_images_of_the_papers_classes_and_what_becomes_of_them(scene):
    classifier = Untrained()
    picture = reconstructions(scene, classifier)
    upper, lower = picture.arrays["upper"], picture.arrays["lower"]
    assert picture.arrays["label"] == [f"class {number}" for number in range(10)]
    rows = (scene.data.test.labels == 4).nonzero().flatten()[: upper.shape[1]]
    torch.testing.assert_close(upper[4], scene.data.test.pixels(rows))
    torch.testing.assert_close(lower[4], classifier.decoder(classifier.encode(upper[4])))

    network = small_cnn((1, 28, 28), 10, (0.3,), (0.3,), (4, 8), 16).eval()
    surface = end_to_end(lambda x: DefenseOutput(network(x).log_softmax(1)), network)
    attacked = converged(scene, classifier, surface, steps=40)
    assert attacked.arrays["label"] == ["2 to 6", "5 to 9", "noise to 1 .. 6"]
    logits = network(attacked.arrays["upper"].flatten(0, 1)).view(3, -1, 10)
    count = logits.shape[1]
    clean = scene.data.test.pixels((scene.data.test.labels == 2).nonzero().flatten()[:count])
    before = network(clean).log_softmax(1)[:, 6]
    assert (logits[0].log_softmax(1)[:, 6] > before).all(), "it moves toward the class aimed at"
    noise = torch.rand(count, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    wanted = torch.arange(count) % 9 + 1
    reached, before = (values.log_softmax(1)[torch.arange(count), wanted] for values in (logits[2], network(noise)))
    assert reached.mean() > before.mean() + 0.2


def test_the_fid_is_measured_where_it_is_asked_for(scene, monkeypatch):
    monkeypatch.setattr(
        "robustforge.defenses.gmvae.figures.inception_distance", lambda real, drawn: float(len(real) + len(drawn))
    )
    assert shown(scene, noise, fid=True, count=200).found["fid"] == 400


def test_the_fid_says_what_it_lacks():
    pytest.importorskip("torchmetrics")
    try:
        import torch_fidelity  # noqa: F401
    except ModuleNotFoundError:
        with pytest.raises(UserError, match="torch-fidelity"):
            inception_distance(torch.rand(2, 1, 28, 28), torch.rand(2, 1, 28, 28))
    else:
        pytest.skip("torch-fidelity is installed, and its weights would be downloaded")
