"""Features of a network at layers given by name, in the same pass as its logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustforge.types import UserError

PENULTIMATE = "penultimate"  # what the last linear layer is given, whatever its network calls it


class Checkpoints(nn.Module):
    """A network that also answers unit-length features of some of its layers.

    Args:
        network: (B, C, H, W) -> logits (B, K).
        layers: names of its modules, whose outputs are checkpointed; ``penultimate`` is the input of the last linear
            layer.
        pool: maps (B, C, h, w) are averaged down to at most ``pool`` x ``pool`` positions before they are flattened.

    Raises:
        UserError: no layer, a layer that does not exist, or no linear layer.
    """

    def __init__(self, network: nn.Module, layers: Sequence[str] = (PENULTIMATE,), pool: int = 1) -> None:
        super().__init__()
        self.network, self.layers, self.pool = network, tuple(layers), pool
        names = [name for name, _ in network.named_modules() if name]
        linear = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
        if not layers or pool < 1:
            raise UserError("Checkpoints need at least one layer and pool of at least 1.")
        for layer in layers:
            if layer == PENULTIMATE and not linear:
                raise UserError(
                    "This network has no linear layer: name the layers to checkpoint (defense.latent.layers)."
                )
            if layer != PENULTIMATE and layer not in names:
                raise UserError(
                    f"The network has no layer '{layer}': choose {PENULTIMATE} or one of {', '.join(names)}."
                )
        self._last = linear[-1] if linear else ""

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(B, C, H, W) -> (logits (B, K), unit-length features (B, D), float32, one a layer)."""
        kept: dict[str, Tensor] = {}

        def before(name: str) -> Any:
            return lambda _, inputs: kept.__setitem__(name, inputs[0])

        def after(name: str) -> Any:
            return lambda _, inputs, output: kept.__setitem__(name, output)

        hooks = []
        for layer in self.layers:
            module = self.network.get_submodule(self._last if layer == PENULTIMATE else layer)
            if layer == PENULTIMATE:
                hooks.append(module.register_forward_pre_hook(before(layer)))
            else:
                hooks.append(module.register_forward_hook(after(layer)))
        try:
            logits = self.network(x)
        finally:
            for hook in hooks:
                hook.remove()
        return logits, [unit_features(kept[layer], self.pool) for layer in self.layers]

    def sizes(self, shape: Sequence[int]) -> list[int]:
        """D of every layer for images of ``shape`` (C, H, W)."""
        training = self.training
        with torch.no_grad():
            _, features = self.eval()(torch.zeros(1, *shape))
        self.train(training)
        return [feature.shape[1] for feature in features]


def unit_features(value: Tensor, pool: int) -> Tensor:
    """(B, D) of unit length, float32, from a layer's output: (B, D), or maps (B, C, h, w) averaged down to ``pool``."""
    if value.dim() == 4:
        height, width = (min(pool, size) for size in value.shape[2:])
        value = F.adaptive_avg_pool2d(value, (height, width))
    return F.normalize(value.float().flatten(1), dim=1, eps=1e-10)
