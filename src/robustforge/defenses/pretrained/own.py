"""A network of the caller's own as the backbone of any defense."""

from __future__ import annotations

from robustforge.attacks.core.models import Network
from robustforge.defenses.stages import Factory
from robustforge.ranges import PositiveFloat, Some


def own_network(
    network: Factory,
    mean: float | Some[float] | None = None,
    std: PositiveFloat | Some[PositiveFloat] | None = None,
    output: int | str | None = None,
) -> Network:
    """The network with its normalization in front, (B, C, H, W) in [0, 1] -> logits (B, K).

    Args:
        network: factory: a class of one's own, or a function of torchvision or timm.
        mean: see :class:`robustforge.attacks.core.models.Network`.
        std: likewise.
        output: likewise.
    """
    return Network(network(), output, mean, std)
