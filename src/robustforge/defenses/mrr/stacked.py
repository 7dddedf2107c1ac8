"""N networks of one architecture as a single batched network: their weights are stacked, their passes are one pass."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state

SMALL_BATCH = 4  # images; up to here grouped convolutions are the faster ones on a CPU too


class StackedNetworks(nn.Module):
    """Evaluates copies of one architecture side by side, in eval mode.

    Args:
        networks: at least one, all of the same architecture; their weights are copied, so that :meth:`load` must be
            called when they change.

    Notes:
        ``torch.vmap`` turns the N convolutions of a layer into one grouped convolution; the first layer, whose input is
        shared, into one convolution with N times the channels. On a CPU grouped convolutions are slow for larger
        batches, and there the networks take turns.
        Weights are kept as (N, size) matrices: a five-dimensional weight has no channels-last layout, which modules are
        moved to.
    """

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        # not a submodule: its own weights are never used
        self._template = (copy.deepcopy(networks[0]).eval().requires_grad_(False).to("meta"),)
        self.count = len(networks)
        state = _stacked(networks)
        self._shapes = {name: value.shape for name, value in state.items()}
        for name, value in state.items():
            self.register_buffer(name.replace(".", "/"), value.reshape(self.count, -1))

    @torch.no_grad()
    def load(self, networks: Sequence[nn.Module]) -> None:
        """Copies the weights of N networks."""
        for name, value in _stacked(networks).items():
            getattr(self, name.replace(".", "/")).copy_(value.reshape(self.count, -1))

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(B, C, H, W) -> (logits (N, B, K), unit-length features (N, B, D), one a checkpointed layer)."""
        template = self._template[0]
        state = {name: getattr(self, name.replace(".", "/")).view(shape) for name, shape in self._shapes.items()}

        def one(weights: dict[str, Tensor]) -> tuple[Tensor, list[Tensor]]:
            answer: tuple[Tensor, list[Tensor]] = functional_call(template, weights, (x,))
            return answer

        if x.is_cuda or len(x) <= SMALL_BATCH:
            together: tuple[Tensor, list[Tensor]] = torch.vmap(one)(state)
            return together
        turns = ({name: value[number] for name, value in state.items()} for number in range(self.count))
        logits, features = zip(*map(one, turns), strict=True)
        return torch.stack(logits), [torch.stack(each) for each in zip(*features, strict=True)]


def _stacked(networks: Sequence[nn.Module]) -> dict[str, Tensor]:
    """Parameters and buffers by name, each with a leading axis of length N."""
    parameters, buffers = stack_module_state(list(networks))
    return {name: value.detach() for name, value in {**parameters, **buffers}.items()}
