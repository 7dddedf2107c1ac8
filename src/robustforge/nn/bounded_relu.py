"""ReLUs with an upper bound, put into any network."""

from __future__ import annotations

from typing import TypeVar

from torch import nn

from robustforge.types import UserError

Network = TypeVar("Network", bound=nn.Module)


def bound_relus(network: Network, limit: float) -> Network:
    """Replaces every ``nn.ReLU`` inside a network by ``min(max(z, 0), limit)`` (Zantedeschi et al. 2017).

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
        setattr(parent, name, nn.Hardtanh(0.0, limit))
    return network
