"""LeNet-5 with today's activations."""

from __future__ import annotations

from torch import nn

from robustforge.nn.normalize import Normalize
from robustforge.nn.staged import Staged
from robustforge.ranges import Classes, PositiveShare, Shape, Share, Some
from robustforge.types import UserError

SMALLEST = 12  # pixels; below it the second convolution has nothing left to pool


def lenet(shape: Shape, num_classes: Classes, mean: Some[Share], std: Some[PositiveShare]) -> Staged:
    """LeNet-5 (LeCun et al. 1998, Fig. 2).

    Args:
        shape: (C, H, W) of the images.
        num_classes: K.
        mean: one value a channel, [0, 1] pixel units.
        std: likewise.

    Returns:
        Module from (B, C, H, W) in [0, 1] to logits (B, K).

    Raises:
        UserError: images under 12 pixels, or channels and statistics that disagree.

    Notes:
        ReLU and max-pooling in place of the scaled tanh, the trainable sub-sampling and the radial-basis outputs.
        Images under 32 pixels are padded by 2 in the first convolution, as LeCun did to MNIST.
    """
    channels, height, width = shape
    if min(height, width) < SMALLEST:
        raise UserError(f"lenet needs images of at least {SMALLEST} pixels, these have {height}x{width}.")
    padding = 2 if min(height, width) < 32 else 0
    rows, columns = (((side + 2 * padding - 4) // 2 - 4) // 2 for side in (height, width))
    return Staged(
        Normalize(mean, std, channels),
        nn.Conv2d(channels, 6, 5, padding=padding),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(16 * rows * columns, 120),
        nn.ReLU(),
        nn.Linear(120, 84),
        nn.ReLU(),
        nn.Linear(84, num_classes),
        ends=(3, 6),
    )
