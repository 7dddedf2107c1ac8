"""N networks of one architecture as a single batched network: their weights are stacked, their passes are one pass."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

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
        self._shapes = {name: value.shape for name, value in _state(networks[0]).items()}
        self.count = len(networks)
        for name, value in _state(networks[0]).items():
            self.register_buffer(_key(name), torch.zeros(self.count, value.numel(), dtype=value.dtype))
        self.load(networks)

    @torch.no_grad()
    def load(self, networks: Sequence[nn.Module]) -> None:
        """Copies the weights of N networks."""
        states = [_state(network) for network in networks]
        for name in self._shapes:
            stacked = torch.stack([state[name].detach().reshape(-1) for state in states])
            getattr(self, _key(name)).copy_(stacked)

    def forward(self, x: Tensor) -> Any:
        """(B, ...) -> what one network answers, each tensor with a leading axis of length N."""
        template = self._template[0]
        state = {name: getattr(self, _key(name)).view(self.count, *shape) for name, shape in self._shapes.items()}

        def one(weights: dict[str, Tensor], images: Tensor) -> Any:
            return functional_call(template, weights, (images,))

        if x.is_cuda or len(x) <= SMALL_BATCH:
            return torch.vmap(one, in_dims=(0, None))(state, x)
        turns = ({name: value[number] for name, value in state.items()} for number in range(self.count))
        return _join([one(weights, x) for weights in turns])


def _state(network: nn.Module) -> dict[str, Tensor]:
    return {**dict(network.named_parameters()), **dict(network.named_buffers())}


def _join(answers: Sequence[Any]) -> Any:
    """Stacks answers of one structure (tensors, or tuples and lists of them) along a new first axis."""
    if isinstance(answers[0], Tensor):
        return torch.stack(list(answers))
    return type(answers[0])(_join(parts) for parts in zip(*answers, strict=True))


def _key(name: str) -> str:
    return name.replace(".", "/")
