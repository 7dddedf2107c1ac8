"""ReLUs with an upper bound, put into any network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch.nn.functional as F
from torch import Tensor, nn

from robustforge.nn.straight_through import backward_pass
from robustforge.types import UserError

Network = TypeVar("Network", bound=nn.Module)


class BoundedReLU(nn.Module):
    """``min(max(z, 0), limit)`` (Zantedeschi et al. 2017, arXiv:1707.06728).

    Args:
        limit: above 0, in units of the activations.

    Attributes:
        open: whether the backward pass ignores the bound, see :func:`open_bounds`.
    """

    def __init__(self, limit: float) -> None:
        super().__init__()
        self.limit, self.open = limit, False

    def forward(self, z: Tensor) -> Tensor:
        """Activations of any shape."""
        return backward_pass(self.bound, z, F.relu) if self.open else self.bound(z)

    def bound(self, z: Tensor) -> Tensor:
        """The function itself, without slope where it is flat."""
        return F.hardtanh(z, 0.0, self.limit)

    def extra_repr(self) -> str:
        """Shown where the network is printed."""
        return f"limit={self.limit}"


def bound_relus(network: Network, limit: float) -> Network:
    """Replaces every ``nn.ReLU`` inside a network by a :class:`BoundedReLU`.

    Args:
        network: changed in place; its weights, and their names, stay.
        limit: above 0, in units of the activations.

    Returns:
        ``network``.

    Raises:
        UserError: a limit that is not above 0, or a network without any ``nn.ReLU`` inside.

    Notes:
        ReLUs that a network calls as a function (``F.relu``) cannot be found; none of ours does.
    """
    if not limit > 0:
        raise UserError(f"ReLUs are to be bounded at {limit}: give a limit above 0.")
    places = [
        (parent, name)
        for parent in network.modules()
        for name, child in parent._modules.items()
        if type(child) is nn.ReLU
    ]
    if not places:
        raise UserError(
            f"{type(network).__name__} has no nn.ReLU to be bounded: choose a model whose ReLUs are modules."
        )
    for parent, name in places:
        setattr(parent, name, BoundedReLU(limit))
    return network


@contextmanager
def open_bounds(network: nn.Module) -> Iterator[None]:
    """Forward passes inside have the slopes of ordinary ReLUs on their way back, the bounded values on their way there.

    Where many units are at their bound, the true gradient is zero and tells an attacker nothing (BPDA, Athalye et al.
    2018, arXiv:1802.00420).
    """
    bounded = [module for module in network.modules() if isinstance(module, BoundedReLU)]
    for module in bounded:
        module.open = True
    try:
        yield
    finally:
        for module in bounded:
            module.open = False
