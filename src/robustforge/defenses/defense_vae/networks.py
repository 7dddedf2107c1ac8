"""Defense-VAE's network (Li & Ji 2019, arXiv:1812.06570; layers of its released white-box code)."""

from __future__ import annotations

from torch import Tensor, nn

from robustforge.nn.padding import crop_to, pad_to_multiple, padded_size
from robustforge.ranges import PositiveInt, Shape


class DefenseVAENetwork(nn.Module):
    """A convolutional VAE from an adversarial image to the clean one.

    Args:
        shape: (C, H, W); features are padded to a multiple of 8, as 28 to 32 in the released code.
        latent: length of z.
        width: channels of the first layers, doubled once and twice further down (released code: 64).

    Notes:
        The batch normalization after the decoder's dense layer, which the released code defines and does not apply, is
        left out. Initial weights as there: N(0, 0.02) for convolutions, N(1, 0.02) for normalization.
    """

    def __init__(self, shape: Shape, latent: PositiveInt = 128, width: PositiveInt = 64) -> None:
        super().__init__()
        channels, self.height, self.width = shape
        self.latent = latent
        rows, columns = (padded_size(side, 8) // 8 for side in (self.height, self.width))
        self.first = _convolution(nn.Conv2d(channels, width, 5, padding=2, bias=False))
        self.down = nn.Sequential(
            *(
                _convolution(nn.Conv2d(before, after, 4, stride=2, padding=1, bias=False))
                for before, after in ((width, width), (width, 2 * width), (2 * width, 4 * width))
            )
        )
        units = 4 * width * rows * columns
        self.mean, self.log_variance = nn.Linear(units, latent, bias=False), nn.Linear(units, latent, bias=False)
        self.start = nn.Linear(latent, units, bias=False)
        self.unflatten = nn.Unflatten(1, (4 * width, rows, columns))
        self.up = nn.Sequential(
            *(
                _convolution(nn.ConvTranspose2d(before, after, 4, stride=2, padding=1, bias=False))
                for before, after in ((4 * width, 2 * width), (2 * width, width), (width, width))
            )
        )
        self.last = nn.Conv2d(width, channels, 5, padding=2, bias=False)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.normal_(module.weight, 0.0, 0.02)
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.weight, 1.0, 0.02)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) in [0, 1] -> (mean, log-variance), (B, latent) each."""
        hidden = self.down(pad_to_multiple(self.first(x), 8)).flatten(1)
        return self.mean(hidden), self.log_variance(hidden)

    def decode(self, z: Tensor) -> Tensor:
        """(B, latent) -> logits of the pixels (B, C, H, W)."""
        hidden = crop_to(self.up(self.unflatten(self.start(z))), self.height, self.width)
        pixels: Tensor = self.last(hidden)
        return pixels

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 1] -> the image rebuilt from the mean of z, in [0, 1]."""
        return self.decode(self.encode(x)[0]).sigmoid()


def _convolution(layer: nn.Conv2d | nn.ConvTranspose2d) -> nn.Sequential:
    return nn.Sequential(layer, nn.BatchNorm2d(layer.out_channels), nn.ReLU())
