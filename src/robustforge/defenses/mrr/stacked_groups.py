"""Defenders of several architectures together: those that are alike side by side, the groups one after another."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from robustforge.defenses.mrr.networks import Checkpoints
from robustforge.defenses.mrr.stacked import StackedNetworks
from robustforge.defenses.mrr.stacked_layers import StackedLayers, stack


def stack_all(networks: Sequence[Checkpoints]) -> StackedLayers | StackedNetworks | StackedGroups:
    """The quickest way to run these networks together.

    Args:
        networks: at least one, with features of the same lengths.

    Returns:
        A module that answers what one of them answers, each tensor with a leading axis of length N in their order, and
        has a method ``load`` to copy their weights again.
    """
    return stack(networks) if len(_groups(networks)) == 1 else StackedGroups(networks)


class StackedGroups(nn.Module):
    """Checkpointed networks of several architectures, in eval mode.

    Args:
        networks: at least one, with features of the same lengths; their weights are copied, so that :meth:`load` must
            be called when they change.
    """

    def __init__(self, networks: Sequence[Checkpoints]) -> None:
        super().__init__()
        self._members = _groups(networks)
        places = [place for members in self._members for place in members]
        self._order = sorted(range(len(places)), key=places.__getitem__)
        self.groups = nn.ModuleList(stack([networks[place] for place in members]) for members in self._members)

    @torch.no_grad()
    def load(self, networks: Sequence[Checkpoints]) -> None:
        """Copies the weights of N networks."""
        for group, members in zip(self.groups, self._members, strict=True):
            group.load([networks[place] for place in members])  # type: ignore[operator]  # a ModuleList hides what it holds

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(B, C, H, W) -> (logits (N, B, K), unit-length features (N, B, D), one a checkpointed layer)."""
        logits, features = zip(*(group(x) for group in self.groups), strict=True)
        return torch.cat(logits)[self._order], [torch.cat(layer)[self._order] for layer in zip(*features, strict=True)]


def _groups(networks: Sequence[Checkpoints]) -> list[list[int]]:
    """Positions of the networks that are alike, group by group."""
    alike: dict[str, list[int]] = {}
    for place, network in enumerate(networks):
        shapes = [(name, tuple(value.shape)) for name, value in network.state_dict().items()]
        alike.setdefault(f"{network}{shapes}", []).append(place)
    return list(alike.values())
