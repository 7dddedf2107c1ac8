"""N sequential networks of one architecture as one: a layer of all of them is one operation."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustforge.defenses.mrr.networks import PENULTIMATE, Checkpoints, unit_features
from robustforge.defenses.mrr.stacked import SMALL_BATCH, StackedNetworks
from robustforge.nn.normalize import Normalize

# layers without weights that differ from network to network, which treat every channel alike
_PLAIN = (Normalize, nn.ReLU, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.Dropout)
_FEW = 2  # images
_WEIGHTED = (nn.Conv2d, nn.BatchNorm2d, nn.Linear)


def stack(networks: Sequence[Checkpoints]) -> StackedLayers | StackedNetworks:
    """The quickest way to run these networks together.

    Args:
        networks: at least one, all of the same architecture.

    Returns:
        A module that answers what one of them answers, each tensor with a leading axis of length N, and has a method
        ``load`` to copy their weights again.
    """
    return StackedLayers(networks) if stackable(networks[0]) else StackedNetworks(networks)


def stackable(checkpoints: Checkpoints) -> bool:
    """Whether :class:`StackedLayers` can stand for such networks: a plain sequence of layers that it knows."""
    network = checkpoints.network
    if not isinstance(network, nn.Sequential) or type(network).forward is not nn.Sequential.forward:
        return False
    flat = all(name == PENULTIMATE or name in dict(network.named_children()) for name in checkpoints.layers)
    return flat and all(_known(layer) for layer in network) and isinstance(network[-1], nn.Linear)


def _known(layer: nn.Module) -> bool:
    if isinstance(layer, nn.Conv2d):
        return layer.groups == 1 and layer.padding_mode == "zeros"
    if isinstance(layer, nn.Flatten):
        return (layer.start_dim, layer.end_dim) == (1, -1)
    return isinstance(layer, (nn.BatchNorm2d, nn.Linear, *_PLAIN))


class StackedLayers(nn.Module):
    """Checkpointed sequential networks side by side, in eval mode.

    Args:
        networks: at least one, all of the same architecture, :func:`stackable`; their weights are copied, so that
            :meth:`load` must be called when they change.

    Notes:
        For small batches, where calls cost more than arithmetic, the N convolutions of a layer are one grouped
        convolution (the first one, whose input is shared, an ordinary one) and the N dense layers one batched product.
        On a CPU grouped convolutions are slow for larger batches: there the networks take turns, on slices of the same
        weights. Convolutions' weights are kept as (N * out, in, h, w), which has a channels-last layout.
        Measured by ``scripts/bench.py defenders`` on 2 cores, AVX512-BF16, one thread, 16 networks of MNIST's size: for
        one image 2.0 times (16 channels) and 1.9 times (32 channels) the speed of ``stack_module_state`` with ``vmap``,
        2.5 and 2.1 times that of a loop; for 128 images 4.9 times vmap's, and about the loop's.
        Few repetitions on a loaded machine.
    """

    def __init__(self, networks: Sequence[Checkpoints]) -> None:
        super().__init__()
        self.count, self.checkpoints, self.pool = len(networks), networks[0].layers, networks[0].pool
        sequence = _sequence(networks[0])
        self.names = [name for name, _ in sequence.named_children()]
        # a tuple registers nothing: of layers with weights only the settings are used, the weights lie in the buffers
        self._settings = tuple(copy.deepcopy(layer).to("meta") for layer in sequence)
        self.plain = nn.ModuleList(
            nn.Identity() if isinstance(layer, (*_WEIGHTED, nn.Dropout)) else copy.deepcopy(layer) for layer in sequence
        )
        for number, layer in enumerate(sequence):
            for name, value in _weights(layer).items():
                shape = (self.count, *value.shape) if isinstance(layer, nn.Linear) else (-1, *value.shape[1:])
                self.register_buffer(f"{name}_{number}", torch.stack([value.detach()] * self.count).reshape(shape))
        self.load(networks)

    @torch.no_grad()
    def load(self, networks: Sequence[Checkpoints]) -> None:
        """Copies the weights of N networks."""
        sequences = [_sequence(network) for network in networks]
        for number, layer in enumerate(sequences[0]):
            for name in _weights(layer):
                buffer: Tensor = getattr(self, f"{name}_{number}")
                found = [_weights(sequence[number])[name].detach() for sequence in sequences]
                buffer.copy_(torch.stack(found).reshape(buffer.shape))

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(B, C, H, W) -> (logits (N, B, K), unit-length features (N, B, D), one a checkpointed layer)."""
        size = self.count if x.is_cuda or len(x) <= SMALL_BATCH else 1
        answers = [self._run(x, first, size) for first in range(0, self.count, size)]
        features = zip(*(kept for _, kept in answers), strict=True)
        return torch.cat([logits for logits, _ in answers]), [torch.cat(each) for each in features]

    def _run(self, x: Tensor, first: int, size: int) -> tuple[Tensor, list[Tensor]]:
        """The same of networks ``first`` to ``first + size``, all at once.

        On the way a value is (B, C, H, W) while it is the same for all, then (B, size * C, H, W), then (size, B, D).
        """
        value, groups, kept = x, 1, {}
        for number, (name, layer) in enumerate(zip(self.names, self._settings, strict=True)):
            if number == len(self.names) - 1:
                kept[PENULTIMATE] = value
            mine = {key: self._slice(f"{key}_{number}", first, size) for key in _weights(layer)}
            if isinstance(layer, nn.Conv2d):
                value, groups = _convolve(layer, value, mine, groups), size
            elif isinstance(layer, nn.BatchNorm2d):
                value, groups = _normalize(layer, value if groups == size else value.repeat(1, size, 1, 1), mine), size
            elif isinstance(layer, nn.Linear):
                value = _multiply(value, mine, size)
            elif isinstance(layer, nn.Flatten):
                value = value.reshape(len(x), groups, -1).transpose(0, 1).expand(size, -1, -1)
            elif isinstance(layer, nn.ReLU) and not any(value is other for other in (x, *kept.values())):
                value = F.relu_(value)  # what it overwrites is needed neither here nor on the way back
            else:
                value = self.plain[number](value)
            if name in self.checkpoints:
                kept[name] = value
        return value, [self._feature(kept[name], size) for name in self.checkpoints]

    def _slice(self, name: str, first: int, size: int) -> Tensor:
        buffer: Tensor = getattr(self, name)
        each = len(buffer) // self.count
        return buffer[first * each : (first + size) * each]

    def _feature(self, value: Tensor, size: int) -> Tensor:
        """(size, B, D) of unit length, from a value on the way that is no longer shared."""
        if value.dim() == 4:
            value = value.view(len(value), size, -1, *value.shape[2:]).transpose(0, 1)
        features = unit_features(value.flatten(0, 1), self.pool)
        return features.view(size, -1, features.shape[1])


def _sequence(checkpoints: Checkpoints) -> nn.Sequential:
    assert isinstance(checkpoints.network, nn.Sequential)
    return checkpoints.network


def _weights(layer: nn.Module) -> dict[str, Tensor]:
    """What differs from network to network."""
    if not isinstance(layer, _WEIGHTED):
        return {}
    state = {**dict(layer.named_parameters()), **dict(layer.named_buffers())}
    return {name: value for name, value in state.items() if name != "num_batches_tracked"}


def _convolve(layer: nn.Conv2d, value: Tensor, mine: dict[str, Tensor], groups: int) -> Tensor:
    return F.conv2d(value, mine["weight"], mine.get("bias"), layer.stride, layer.padding, layer.dilation, groups)


def _normalize(layer: nn.BatchNorm2d, value: Tensor, mine: dict[str, Tensor]) -> Tensor:
    return F.batch_norm(
        value, mine["running_mean"], mine["running_var"], mine.get("weight"), mine.get("bias"), eps=layer.eps
    )


def _multiply(value: Tensor, mine: dict[str, Tensor], size: int) -> Tensor:
    """(size, B, D) -> (size, B, out)."""
    if size == 1:
        bias = mine["bias"][0] if "bias" in mine else None
        return F.linear(value[0], mine["weight"][0], bias)[None]
    if "bias" in mine and value.shape[1] <= _FEW:  # weights are read as they lie, which is what such a product costs
        return torch.baddbmm(mine["bias"][..., None], mine["weight"], value.mT).mT
    if "bias" in mine:
        return torch.baddbmm(mine["bias"][:, None], value, mine["weight"].mT)
    return value @ mine["weight"].mT
