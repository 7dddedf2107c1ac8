"""The one function that turns config nodes into objects."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import hydra
from hydra.errors import InstantiationException
from omegaconf import DictConfig, open_dict

from robustforge.config.numbers import with_numbers
from robustforge.config.tables import GIVEN
from robustforge.config.values import check_node
from robustforge.types import UserError


def build(node: Any) -> Any:
    """Instantiates a node and all inside it: containers come out as plain lists and dicts, fractions as numbers.

    Raises:
        UserError: a value that its object cannot take, see :func:`robustforge.config.values.check_node`; or the object
            refused it (its own sentence).
    """
    if not isinstance(node, DictConfig):
        return node
    node = with_numbers(without(node, [key for key in GIVEN if key in node and node[key] is None]))
    check_node(node)
    try:
        return hydra.utils.instantiate(node, _convert_="all")
    except InstantiationException as error:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, UserError):
                raise cause from None
            cause = cause.__cause__
        raise


def without(node: DictConfig, keys: Sequence[str]) -> DictConfig:
    """A node without some of its keys, at the same place in its configuration; the node itself where it has none."""
    found = [key for key in keys if key in node]
    if not found:
        return node
    made = copy.deepcopy(node)
    with open_dict(made):
        for key in found:
            del made[key]
    return made
