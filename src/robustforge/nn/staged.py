"""Classifiers that can be taken apart into stages and a head, for what works on feature maps at several depths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import nn


class Split(NamedTuple):
    """A classifier in pieces; they share its layers.

    Attributes:
        stages: one after the other they turn images in [0, 1] into the last feature map; the first one includes the
            normalization and the stem.
        head: last feature map -> logits.
    """

    stages: list[nn.Module]
    head: nn.Module


class Staged(nn.Sequential):
    """Layers in order, some of which end a stage.

    Args:
        layers: of the whole classifier, normalization first.
        ends: positions of the layers whose outputs are the stages' feature maps, ascending.
    """

    def __init__(self, *layers: nn.Module, ends: Sequence[int]) -> None:
        super().__init__(*layers)
        self.ends = tuple(ends)

    def split(self) -> Split:
        """Stages and head."""
        layers = list(self)
        starts = (0, *(end + 1 for end in self.ends))
        stages: list[nn.Module] = [
            nn.Sequential(*layers[start : end + 1]) for start, end in zip(starts, self.ends, strict=False)
        ]
        return Split(stages, nn.Sequential(*layers[starts[-1] :]))
