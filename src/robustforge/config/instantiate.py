"""The one function that turns config nodes into objects."""

from __future__ import annotations

from typing import Any

import hydra
from hydra.errors import InstantiationException
from omegaconf import DictConfig

from robustforge.config.numbers import with_numbers
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
    node = with_numbers(node)
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
