"""Residual networks (He et al. 2016), built of torchvision's blocks, with stems for small images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from robustforge.nn.normalize import Normalize
from robustforge.nn.staged import Split, Staged
from robustforge.ranges import Classes, PositiveShare, Shape, Share, Some
from robustforge.types import UserError

Stem = Literal["cifar", "cifar_pool", "imagenet"]
STEMS = get_args(Stem)


class StagedResNet(Staged):
    """Normalization and torchvision's network, whose four ``layer``s are the stages.

    Args:
        normalize: first layer.
        network: without its normalization.
    """

    def __init__(self, normalize: Normalize, network: ResNet) -> None:
        super().__init__(normalize, network, ends=())

    def split(self) -> Split:
        """Stages and head."""
        network = self[1]
        assert isinstance(network, ResNet)
        stem = (self[0], network.conv1, network.bn1, network.relu, network.maxpool)
        first = nn.Sequential(*stem, network.layer1)
        head = nn.Sequential(network.avgpool, nn.Flatten(), network.fc)
        return Split([first, network.layer2, network.layer3, network.layer4], head)


def resnet18(
    shape: Shape,
    num_classes: Classes,
    mean: Some[Share],
    std: Some[PositiveShare],
    stem: Stem = "cifar",
) -> StagedResNet:
    """ResNet-18. For the arguments see :func:`build`."""
    return build(BasicBlock, (2, 2, 2, 2), shape, num_classes, mean, std, stem)


def resnet34(
    shape: Shape,
    num_classes: Classes,
    mean: Some[Share],
    std: Some[PositiveShare],
    stem: Stem = "cifar",
) -> StagedResNet:
    """ResNet-34. For the arguments see :func:`build`."""
    return build(BasicBlock, (3, 4, 6, 3), shape, num_classes, mean, std, stem)


def resnet50(
    shape: Shape,
    num_classes: Classes,
    mean: Some[Share],
    std: Some[PositiveShare],
    stem: Stem = "cifar",
) -> StagedResNet:
    """ResNet-50, stride in the 3 x 3 convolution of a bottleneck. For the arguments see :func:`build`."""
    return build(Bottleneck, (3, 4, 6, 3), shape, num_classes, mean, std, stem)


def build(
    block: type[BasicBlock | Bottleneck],
    layers: Sequence[int],
    shape: Shape,
    num_classes: Classes,
    mean: Some[Share],
    std: Some[PositiveShare],
    stem: Stem,
) -> StagedResNet:
    """Normalization and a residual network.

    Args:
        block: torchvision's basic block or bottleneck.
        layers: blocks in each of the four stages.
        shape: (C, H, W) of the images; any number of channels.
        num_classes: K.
        mean: one value a channel, [0, 1] pixel units.
        std: likewise.
        stem: ``cifar`` (3 x 3, stride 1, no pooling), ``cifar_pool`` (the same with the 3 x 3 max-pooling of stride 2
            kept: classifier-A of Memory Defense, arXiv:2202.02595, released code) or ``imagenet`` (7 x 7, stride 2,
            pooling).

    Returns:
        Module from (B, C, H, W) in [0, 1] to logits (B, K); every convolution has Kaiming's fan-out initialization.

    Raises:
        UserError: unknown stem, or channels and statistics that disagree.
    """
    if stem not in STEMS:
        raise UserError(f"The stem is '{stem}': choose one of {', '.join(STEMS)}.")
    network = ResNet(block, list(layers), num_classes=num_classes)
    if stem == "imagenet":
        network.conv1 = nn.Conv2d(shape[0], 64, 7, stride=2, padding=3, bias=False)
    else:
        network.conv1 = nn.Conv2d(shape[0], 64, 3, stride=1, padding=1, bias=False)
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    if stem == "cifar":
        network.maxpool = nn.Identity()
    return StagedResNet(Normalize(mean, std, shape[0]), network)
