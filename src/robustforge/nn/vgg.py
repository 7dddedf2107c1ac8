"""VGG-16 (Simonyan & Zisserman 2015), with ImageNet's weights where they can be had."""

from __future__ import annotations

import logging

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import VGG16_Weights
from torchvision.models import vgg16 as torchvision_vgg16
from torchvision.models import vgg16_bn as torchvision_vgg16_bn

from robustforge.nn.normalize import Normalize
from robustforge.ranges import Classes, PositiveShare, Shape, Share, Some
from robustforge.types import UserError

SMALLEST = 32  # pixels: five poolings leave one
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

log = logging.getLogger(__name__)


class ToVGGInput(nn.Module):
    """Zero-pads images to 32 pixels at least and repeats a gray channel three times."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1 or 3, H, W) in [0, 1] -> (B, 3, max(H, 32), max(W, 32)) in [0, 1]."""
        rows, columns = (max(SMALLEST - side, 0) for side in x.shape[-2:])
        if rows or columns:
            x = F.pad(x, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))
        return x.expand(-1, 3, -1, -1) if x.shape[1] == 1 else x


def vgg16(
    shape: Shape, num_classes: Classes, mean: Some[Share], std: Some[PositiveShare], pretrained: bool | None = True
) -> nn.Sequential:
    """VGG-16's convolutions and one linear layer of 512 inputs.

    Args:
        shape: (C, H, W) of the images, 1 or 3 channels.
        num_classes: K.
        mean: checked, not used: the first layer has ImageNet's statistics, which the weights were trained with.
        std: likewise.
        pretrained: start from torchvision's ImageNet weights. When they cannot be fetched a warning says so, and the
            variant with batch normalization is built, as the plain one hardly trains from scratch. None builds the
            plain one without weights, for those that are loaded into it.

    Returns:
        Module from (B, C, H, W) in [0, 1] to logits (B, K).

    Raises:
        UserError: another number of channels, or channels and statistics that disagree.

    Notes:
        The three dense layers of 4,096 units are replaced, as is usual at 32 x 32. Offline and online builds differ in
        architecture, so a checkpoint of one does not load into the other: set ``pretrained: false`` for the former.
    """
    if shape[0] not in (1, 3):
        raise UserError(f"vgg16 takes 1 or 3 channels, these images have {shape[0]}: choose another model.")
    Normalize(mean, std, shape[0])
    return nn.Sequential(
        ToVGGInput(),
        Normalize(IMAGENET_MEAN, IMAGENET_STD),
        _features(pretrained),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(512, num_classes),
    )


def _features(pretrained: bool | None) -> nn.Module:
    if pretrained:
        try:
            pretrained_features: nn.Module = torchvision_vgg16(weights=VGG16_Weights.IMAGENET1K_V1).features
            return pretrained_features
        except (OSError, RuntimeError) as error:  # no network, or a damaged download
            log.warning(
                "VGG-16's ImageNet weights could not be fetched (%s): training from scratch with batch normalization. "
                "Set model.pretrained=false to ask for that.",
                error,
            )
    build = torchvision_vgg16 if pretrained is None else torchvision_vgg16_bn
    features: nn.Module = build(weights=None).features
    return features
