"""A small convolutional network for 28 x 28 images, quick on a CPU."""

from __future__ import annotations

from torch import nn

from robustforge.nn.flatten import FlattenMaps
from robustforge.nn.gray_conv import GrayConv2d
from robustforge.nn.normalize import Normalize
from robustforge.nn.staged import Staged
from robustforge.ranges import Classes, PositiveInt, PositiveShare, Shape, Share, Some
from robustforge.types import UserError


def small_cnn(
    shape: Shape,
    num_classes: Classes,
    mean: Some[Share],
    std: Some[PositiveShare],
    widths: Some[PositiveInt] = (32, 64),
    hidden: PositiveInt = 128,
    batch_norm: bool = False,
) -> Staged:
    """Convolutions 4 x 4 of stride 2, then one hidden dense layer.

    Args:
        shape: (C, H, W) of the images.
        num_classes: K.
        mean: one value a channel, [0, 1] pixel units.
        std: likewise.
        widths: output channels of each convolution; each halves the image.
        hidden: units of the dense layer.
        batch_norm: normalize after every convolution.

    Returns:
        Module from (B, C, H, W) in [0, 1] to logits (B, K).

    Raises:
        UserError: the image is halved to nothing, or channels and statistics disagree.

    Notes:
        Ours. Striding in place of pooling is what makes it quick: no layer works at the full resolution twice.
    """
    channels, height, width = shape
    shrink = 2 ** len(widths)
    if min(height, width) < shrink:
        raise UserError(
            f"small_cnn halves an image {len(widths)} times and {height}x{width} pixels is too small for that: "
            f"give fewer model.widths or images of at least {shrink} pixels."
        )
    layers: list[nn.Module] = [Normalize(mean, std, channels)]
    ends = []
    for before, after in zip([channels, *widths], widths, strict=False):
        layers.append(_convolution(before, after, bias=not batch_norm))
        layers += [nn.BatchNorm2d(after), nn.ReLU()] if batch_norm else [nn.ReLU()]
        ends.append(len(layers) - 1)
    features = ([channels, *widths][-1]) * (height // shrink) * (width // shrink)
    layers += [FlattenMaps(), nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, num_classes)]
    return Staged(*layers, ends=ends)


def _convolution(before: int, after: int, bias: bool) -> nn.Conv2d:
    if before == 1:
        return GrayConv2d(after, 4, stride=2, padding=1, bias=bias)
    return nn.Conv2d(before, after, 4, stride=2, padding=1, bias=bias)
