"""A network trained elsewhere, and test images."""

import copy

import owned
import pytest


@pytest.fixture(scope="session")
def plain_network():
    return owned.trained()


@pytest.fixture
def network(plain_network):
    return copy.deepcopy(plain_network)


@pytest.fixture(scope="session")
def images():
    _, (x, y) = owned.digits()
    return x[:60], y[:60]
