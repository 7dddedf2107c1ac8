"""A small classifier trained on scikit-learn's digits, and images to attack."""

import pytest
import torch
import torch.nn.functional as F

from robustforge.attacks.core.surface import Surface
from robustforge.data.datamodule import ImageData
from robustforge.defenses.base import classify
from robustforge.nn.small_cnn import small_cnn
from robustforge.types import DefenseOutput


@pytest.fixture(scope="session")
def digits():
    data = ImageData(name="digits", kind="digits", shape=(1, 28, 28), num_classes=10)
    data.setup()
    return data


@pytest.fixture(scope="session")
def images(digits):
    """(x (64, 1, 28, 28), y (64,)): test images."""
    return digits.test.images[:64].float() / 255, digits.test.labels[:64]


@pytest.fixture(scope="session")
def trained(digits):
    """About 95 % right on clean digits."""
    torch.manual_seed(0)
    network = small_cnn((1, 28, 28), 10, (0.3,), (0.3,), widths=(8, 16), hidden=32)
    optimizer = torch.optim.Adam(network.parameters(), lr=4e-3)
    x, y = digits.train.images.float() / 255, digits.train.labels
    for _ in range(5):
        for rows in torch.randperm(len(y)).split(64):
            optimizer.zero_grad()
            F.cross_entropy(network(x[rows]), y[rows]).backward()
            optimizer.step()
    return network.eval()


@pytest.fixture(scope="session")
def victim(trained):
    """The trained classifier as a surface."""
    return classify(trained)["end_to_end"]


@pytest.fixture
def surface_of():
    """surface_of(views, system, modules=...): a surface from two functions, the second giving logits."""

    def call(views, system, modules=None, weights=(1.0,)):
        modules = torch.nn.Identity() if modules is None else modules
        return Surface("made", views, lambda x, y: DefenseOutput(system(x, y)), modules, weights)

    return call
