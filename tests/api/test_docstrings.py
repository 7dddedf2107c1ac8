"""The examples in docstrings run."""

import doctest
import importlib
import pkgutil

import pytest

import robustforge
import robustforge.api

MODULES = [
    "robustforge", "robustforge.types", "robustforge.data.memory", "robustforge.config.named",
    *(f"robustforge.api.{module.name}" for module in pkgutil.iter_modules(robustforge.api.__path__)),
]  # fmt: skip


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    failed, _ = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert failed == 0


def test_what_the_package_offers_has_examples():
    finder = doctest.DocTestFinder(recurse=False)
    for name in ("attack", "evaluate", "system", "attack_names", "protocols"):
        assert any(test.examples for test in finder.find(getattr(robustforge, name))), name
