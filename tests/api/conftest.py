"""A network trained elsewhere, and test images."""

import copy

import owned
import pytest


@pytest.fixture(scope="session")
def _network():
    return owned.trained()


@pytest.fixture
def network(_network):
    return copy.deepcopy(_network)


@pytest.fixture(scope="session")
def images():
    _, (x, y) = owned.digits()
    return x[:60], y[:60]
