"""Wide residual networks (Zagoruyko & Komodakis 2016, arXiv:1605.07146)."""

from __future__ import annotations

from torch import Tensor, nn

from robustforge.nn.normalize import Normalize
from robustforge.nn.staged import Staged
from robustforge.ranges import Classes, PositiveInt, PositiveShare, Shape, Share, ShareBelowOne, Some
from robustforge.types import UserError


class WideBlock(nn.Module):
    """Pre-activation block: (normalize, ReLU, 3 x 3 convolution) twice, plus the shortcut.

    Args:
        before: input channels.
        after: output channels.
        stride: of the first convolution.
        dropout: probability, between the convolutions.
    """

    def __init__(self, before: int, after: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(before)
        self.conv1 = nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(after)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        changes = stride != 1 or before != after
        self.shortcut = nn.Conv2d(before, after, 1, stride=stride, bias=False) if changes else None
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """(B, before, H, W) -> (B, after, H / stride, W / stride)."""
        activated = self.relu(self.norm1(x))
        out: Tensor = self.conv2(self.dropout(self.relu(self.norm2(self.conv1(activated)))))
        # where the shape changes, the projection sees the activated input, as in pre-activation ResNets
        return out + (x if self.shortcut is None else self.shortcut(activated))


def wide_resnet28_10(
    shape: Shape,
    num_classes: Classes,
    mean: Some[Share],
    std: Some[PositiveShare],
    depth: PositiveInt = 28,
    width: PositiveInt = 10,
    dropout: ShareBelowOne = 0.0,
) -> Staged:
    """WRN-depth-width.

    Args:
        shape: (C, H, W) of the images.
        num_classes: K.
        mean: one value a channel, [0, 1] pixel units.
        std: likewise.
        depth: convolutions, 6 n + 4.
        width: factor on the channels 16, 32, 64.
        dropout: probability inside the blocks (paper: 0 or 0.3).

    Returns:
        Module from (B, C, H, W) in [0, 1] to logits (B, K).

    Raises:
        UserError: a depth that is not 6 n + 4, or channels and statistics that disagree.
    """
    blocks, rest = divmod(depth - 4, 6)
    if rest or blocks < 1:
        raise UserError(f"The depth of a wide residual network is {depth}: give 6 n + 4, for example 16, 28 or 34.")
    layers: list[nn.Module] = [Normalize(mean, std, shape[0]), nn.Conv2d(shape[0], 16, 3, padding=1, bias=False)]
    before = 16
    for group, stride in ((16, 1), (32, 2), (64, 2)):
        for index in range(blocks):
            layers.append(WideBlock(before, group * width, stride if index == 0 else 1, dropout))
            before = group * width
    head = [nn.BatchNorm2d(before), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, num_classes)]
    # a stage is a group of blocks; the last one includes the closing normalization and ReLU, without which its sums of
    # residuals are no features yet
    network = Staged(*layers, *head, ends=(1 + blocks, 1 + 2 * blocks, 3 + 3 * blocks))
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return network
