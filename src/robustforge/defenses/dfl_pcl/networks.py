"""Defensive Feature Layer (Hassanin et al. 2020, arXiv:2012.04750, Eq. 1): every stage feeds the classifier."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustforge.nn.flatten import flatten_maps
from robustforge.nn.staged import Staged
from robustforge.types import UserError


@dataclass(frozen=True)
class FeatureOutput:
    """What the network makes of a batch.

    Attributes:
        logits: (B, K).
        features: (B, d), what the linear head sees (f in the paper).
        maps: the stages' feature maps F_1 .. F_m, each (B, C_j, H_j, W_j).
    """

    logits: Tensor
    features: Tensor
    maps: list[Tensor]

    def pooled(self) -> list[Tensor]:
        """Mean of each map over its pixels, (B, C_j)."""
        return [stage.mean((2, 3)) for stage in self.maps]


def deconvolution_block(before: int, after: int) -> nn.Sequential:
    """D of Eq. 1: 1 x 1 transposed convolution, batch normalization, ReLU; (B, before, H, W) -> (B, after, H, W).

    Notes:
        At stride 1 it is a 1 x 1 convolution with its weight transposed, so that "deconvolution" adds no resolution.
        The paper says nothing of normalization and activation.
    """
    return nn.Sequential(nn.ConvTranspose2d(before, after, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU())


class DefensiveFeatureNetwork(nn.Module):
    """A staged backbone whose stages all feed the linear head.

    Every stage but the last goes through a deconvolution block and a max-pooling to the size of the last map; all are
    concatenated on channels (Eq. 1), averaged over pixels, and classified by one linear layer without bias (Eq. 2).

    Args:
        backbone: network with stages; its own head is dropped.
        shape: (C, H, W) of the images.
        num_classes: K.
        dfl: whether the branches are there; without them the last map alone is pooled and classified.
        dfl_channels: output channels of each branch; None keeps the stage's own number.
        pool_size: side p of the pooled map, pixels; 1 is the average over all pixels (paper). Shallow backbones, whose
            last map is large, need 2 or more to keep the layout of the image.

    Attributes:
        widths: C_1 .. C_m of the stages' maps.
        dim: d, length of the features.

    Raises:
        UserError: a backbone that cannot be taken apart, or fewer than one channel or pixel.
    """

    def __init__(
        self,
        backbone: nn.Module,
        shape: Sequence[int],
        num_classes: int,
        dfl: bool = True,
        dfl_channels: int | None = None,
        pool_size: int = 1,
    ) -> None:
        super().__init__()
        if not isinstance(backbone, Staged):
            raise UserError(
                "The Defensive Feature Layer needs a model with stages: choose model=small_cnn, lenet, resnet18, "
                "resnet34, resnet50 or wide_resnet28_10."
            )
        if pool_size < 1 or (dfl_channels is not None and dfl_channels < 1):
            raise UserError(f"pool_size is {pool_size} and dfl_channels {dfl_channels}: give at least 1 of each.")
        self.stages = nn.ModuleList(backbone.split().stages)
        self.widths = self._measure(shape)
        branches = self.widths[:-1] if dfl else []
        self.branches = nn.ModuleList(deconvolution_block(width, dfl_channels or width) for width in branches)
        self.pool, self.pooled = nn.AdaptiveAvgPool2d(pool_size), (pool_size, pool_size)
        channels = self.widths[-1] + sum(dfl_channels or width for width in branches)
        self.dim = channels * pool_size**2
        self.classifier = nn.Linear(self.dim, num_classes, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 1] -> logits (B, K)."""
        return self.respond(x).logits

    def respond(self, x: Tensor) -> FeatureOutput:
        """(B, C, H, W) in [0, 1] -> logits with the features that led to them."""
        maps = self._maps(x)
        size = maps[-1].shape[-2:]
        branches = [
            F.adaptive_max_pool2d(branch(stage), size) for branch, stage in zip(self.branches, maps, strict=False)
        ]
        together = torch.cat([maps[-1], *branches], 1)
        # a map that has the pooled size already is its own average; saying so spares a slow backward pass
        pooled = together if size == self.pooled else self.pool(together)
        features = flatten_maps(pooled)
        return FeatureOutput(self.classifier(features), features, maps)

    def _maps(self, x: Tensor) -> list[Tensor]:
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps

    @torch.no_grad()
    def _measure(self, shape: Sequence[int]) -> list[int]:
        """Channels of each stage, read off one gray image."""
        modes = [(module, module.training) for module in self.stages.modules()]
        self.stages.eval()  # or that image would enter the running statistics
        widths = [stage.shape[1] for stage in self._maps(torch.full((1, *shape), 0.5))]
        for module, mode in modes:
            module.training = mode
        return widths
