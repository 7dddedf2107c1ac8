"""Attacks: one algorithm a file, and every attack's class as an attribute: ``robustforge.attacks.PGD``."""

from __future__ import annotations

import functools
import importlib
import pkgutil
from typing import Any


@functools.cache
def _classes() -> dict[str, type]:
    """The attack classes of this package's modules, by name."""
    found: dict[str, type] = {}
    for module in pkgutil.iter_modules(__path__):
        if not module.ispkg:
            members = vars(importlib.import_module(f"{__name__}.{module.name}"))
            own = {name: one for name, one in members.items() if getattr(one, "__module__", "").endswith(module.name)}
            found |= {name: one for name, one in own.items() if isinstance(one, type) and _attacks(one)}
    return found


def _attacks(kind: type) -> bool:
    """Whether it is called with images, and configured by a dataclass: an attack, and not one of its parts."""
    return hasattr(kind, "__dataclass_fields__") and "threat" in getattr(kind.__call__, "__annotations__", ())


def __getattr__(name: str) -> Any:
    if not name.startswith("_") and name in _classes():
        return _classes()[name]
    raise AttributeError(f"robustforge.attacks has no attack '{name}'; it has {', '.join(sorted(_classes()))}.")


def __dir__() -> list[str]:
    return sorted(_classes())
