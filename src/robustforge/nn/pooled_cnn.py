"""Two convolutions and a pooling, twice, then dense layers: the victims of modular robust redundancy."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from robustforge.nn.normalize import Normalize
from robustforge.ranges import Classes, PositiveInt, PositiveShare, Shape, Share, ShareBelowOne, Some
from robustforge.types import UserError


def pooled_cnn(
    shape: Shape,
    num_classes: Classes,
    mean: Some[Share],
    std: Some[PositiveShare],
    widths: Some[PositiveInt] = (32, 32),
    hidden: Sequence[PositiveInt] = (200, 200),
    dropout: ShareBelowOne = 0.5,
    linear_convolutions: bool = False,
    batch_norm: bool = False,
) -> nn.Sequential:
    """Blocks of two 3 x 3 convolutions and a 2 x 2 max-pooling, then dense layers with ReLU and dropout.

    Args:
        shape: (C, H, W) of the images.
        num_classes: K.
        mean: one value a channel, [0, 1] pixel units.
        std: likewise.
        widths: channels of each block; each block halves the image.
        hidden: units of each dense layer before the last one.
        dropout: probability after each dense layer.
        linear_convolutions: no ReLU after the convolutions.
        batch_norm: normalize after every convolution.

    Returns:
        Module from (B, C, H, W) in [0, 1] to logits (B, K).

    Raises:
        UserError: the image is halved to nothing, or channels and statistics disagree.

    Notes:
        The MNIST victim of CuRTAIL's released code has linear convolutions (two in a row are one); ReLU is our default.
        Its inputs are raw pixels: ours are normalized in the first layer, as in every other network here.
    """
    channels, height, width = shape
    shrink = 2 ** len(widths)
    if min(height, width) < shrink:
        raise UserError(
            f"pooled_cnn halves an image {len(widths)} times and {height}x{width} pixels is too small for that: "
            f"give fewer model.widths or images of at least {shrink} pixels."
        )
    layers: list[nn.Module] = [Normalize(mean, std, channels)]
    for before, after in zip([channels, *widths], widths, strict=False):
        layers += _block(before, after, linear_convolutions, batch_norm)
    features = [channels, *widths][-1] * (height // shrink) * (width // shrink)
    layers.append(nn.Flatten())
    for inputs, units in zip([features, *hidden], hidden, strict=False):
        layers += [nn.Linear(inputs, units), nn.ReLU(), nn.Dropout(dropout)]
    layers.append(nn.Linear([features, *hidden][-1], num_classes))
    return nn.Sequential(*layers)


def _block(before: int, after: int, linear: bool, batch_norm: bool) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for inputs in (before, after):
        layers.append(nn.Conv2d(inputs, after, 3, padding=1, bias=not batch_norm))
        layers += [nn.BatchNorm2d(after)] if batch_norm else []
        layers += [] if linear else [nn.ReLU()]
    return [*layers, nn.MaxPool2d(2)]
