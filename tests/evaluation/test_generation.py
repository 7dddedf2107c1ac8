"""Samples and their distance to the data."""

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torch import nn

from robustforge.evaluation.generation import features, frechet_distance, inception_distance, save_generation
from robustforge.nn.small_cnn import small_cnn
from robustforge.types import DefenseOutput, UserError

CPU = torch.device("cpu")


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


class Generative(nn.Module):
    """Draws training images of the class asked for, or noise."""

    def __init__(self, data, honest):
        super().__init__()
        self.undefended = small_cnn((1, 28, 28), 10, (0.3,), (0.3,), (4, 8), 16).eval()
        self.data, self.honest = data, honest

    def generate(self, labels, index, seed):
        if not self.honest:
            return torch.rand(len(labels), 1, 28, 28, generator=torch.Generator().manual_seed(seed))
        rows = torch.stack([(self.data.train.labels == y).nonzero()[0, 0] for y in labels])
        return self.data.train.images[rows].float() / 255

    def forward(self, x):
        return DefenseOutput(torch.zeros(len(x), 10), purified=1 - x)


def test_samples_are_saved_and_measured(data, tmp_path):
    torch.manual_seed(0)
    honest = save_generation(Generative(data, True), data, tmp_path / "a.npz", CPU, count=300)
    noise = save_generation(Generative(data, False), data, tmp_path / "b.npz", CPU, count=300)
    assert set(honest) == {"frechet_distance", "frechet_floor"}
    assert honest["frechet_floor"] < honest["frechet_distance"] < noise["frechet_distance"]
    with np.load(tmp_path / "a.npz") as archive:
        assert archive["samples"].shape == (10, 8, 1, 28, 28)
        np.testing.assert_allclose(archive["rebuilt"], 1 - archive["clean"], atol=1e-6)
        first = data.train.images[(data.train.labels == 4).nonzero()[0, 0]].numpy() / 255
        np.testing.assert_allclose(archive["samples"][4, 0], first, atol=1e-6)


def test_the_fid_is_measured_where_it_is_asked_for(data, tmp_path, monkeypatch):
    asked = Generative(data, False)
    asked.fid = True
    monkeypatch.setattr(
        "robustforge.evaluation.generation.inception_distance", lambda real, drawn: float(len(real) + len(drawn))
    )
    assert save_generation(asked, data, tmp_path / "a.npz", CPU, count=200)["fid"] == 400


def test_a_defense_that_generates_nothing_writes_nothing(defense, data, tmp_path):
    assert save_generation(defense, data, tmp_path / "c.npz", CPU) == {}
    assert not (tmp_path / "c.npz").exists()


def test_the_fid_says_what_it_lacks():
    pytest.importorskip("torchmetrics")
    try:
        import torch_fidelity  # noqa: F401
    except ModuleNotFoundError:
        with pytest.raises(UserError, match="torch-fidelity"):
            inception_distance(torch.rand(2, 1, 28, 28), torch.rand(2, 1, 28, 28))
    else:
        pytest.skip("torch-fidelity is installed, and its weights would be downloaded")
