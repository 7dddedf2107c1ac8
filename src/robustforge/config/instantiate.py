"""The one function that turns config nodes into objects."""

from __future__ import annotations

from typing import Any

import hydra
from hydra.errors import InstantiationException
from omegaconf import DictConfig

from robustforge.config.numbers import with_numbers
from robustforge.types import UserError


def build(node: Any) -> Any:
    """Instantiates a node and all inside it: containers come out as plain lists and dicts, fractions as numbers.

    Raises:
        UserError: the object refused its values (its own sentence), or the node and its target disagree about names.
    """
    if not isinstance(node, DictConfig):
        return node
    try:
        return hydra.utils.instantiate(with_numbers(node), _convert_="all")
    except InstantiationException as error:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, UserError):
                raise cause from None
            cause = cause.__cause__
        raise
