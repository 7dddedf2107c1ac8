"""A network that was trained elsewhere: nothing is trained, everything is attacked and reported as for any defense."""

from __future__ import annotations

from torch import Tensor, nn

from robustforge.defenses.base import Defense
from robustforge.defenses.pretrained.own import own_network
from robustforge.defenses.pretrained.weights import load_weights
from robustforge.defenses.stages import Factory, Stage, build_seeded
from robustforge.ranges import PositiveFloat, Seed, Some
from robustforge.types import DefenseOutput


class Pretrained(Defense):
    """A classifier with weights from a file.

    Args:
        network: factory of the classifier, (B, C, H, W) -> (B, K): a class of one's own, or a
            function of torchvision or timm.
        weights: file with its weights, see :func:`robustforge.defenses.pretrained.weights.load_weights`; None: as the
            factory made it.
        mean: normalization in front of it, pixel units of [0, 1], one value or one a channel; None: it normalizes for
            itself.
        std: likewise.
        output: where in its answer the logits are: an index, a key or an attribute; None: the answer is a tensor.
        seed: of initial weights, where no file gives them.

    Raises:
        UserError: the weights cannot be read or do not fit.
    """

    def __init__(
        self,
        network: Factory,
        weights: str | None = None,
        mean: float | Some[float] | None = None,
        std: PositiveFloat | Some[PositiveFloat] | None = None,
        output: int | str | None = None,
        seed: Seed = 0,
    ) -> None:
        super().__init__(seed=seed)
        self.network = build_seeded(lambda: own_network(network, mean, std, output), seed, "network")
        if weights is not None:
            load_weights(self.network, weights)

    def forward(self, x: Tensor) -> DefenseOutput:
        """(B, C, H, W) in [0, 1] -> logits (B, K)."""
        return DefenseOutput(self.network(x))

    def stages(self) -> list[Stage]:
        """None: it is trained already."""
        return []

    def classifier_network(self) -> nn.Module:
        """The classifier, normalization inside."""
        return self.network
