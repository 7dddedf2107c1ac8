"""The U-shaped denoising auto-encoder of arXiv:2312.03520: GELU activations, Gaussian noise on the latent."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from robustforge.defenses.choices import one_of
from robustforge.nn.padding import crop_to, pad_to_multiple, padded_size
from robustforge.nn.running_moments import RunningMoments
from robustforge.ranges import NonNegativeFloat, PositiveInt, Shape, Some
from robustforge.types import UserError

SKIPS = ("none", "add", "concat")
SCALES = ("relative", "absolute")
DARK = -2.0  # log-odds of a pixel before training
ACTIVATIONS: dict[str, type[nn.Module]] = {"gelu": nn.GELU, "relu": nn.ReLU}


class Denoiser(nn.Module):
    """Halves the image ``len(widths) - 1`` times, adds noise to the latent, and doubles it back.

    Args:
        shape: (C, H, W); sides that the halvings do not divide are padded with zeros and cropped afterwards.
        widths: channels at each resolution, from the image's own down.
        latent_channels: of the latent; 64 at a quarter of 28 x 28 is more numbers than the image has.
        skips: ``none``; ``add`` or ``concat`` hand the encoder's features of each resolution to the decoder, past
            bottleneck and noise.
        noise: standard deviation of the latent noise.
        noise_scale: of ``noise``: ``relative`` to the latent's running standard deviation, or ``absolute``.
        activation: ``gelu`` (paper) or ``relu``.

    Raises:
        UserError: unknown words, no width, or negative noise.

    Notes:
        The paper gives U shape, GELU and latent noise; layers, widths and the sigmoid at the end are ours. Without
        skips by default: with them a perturbation passes by both the bottleneck and the noise. Initial weights are He
        et al.'s (2015), and a new network answers dark gray: with PyTorch's own, narrow networks begin as a constant
        and may end as a black image.
    """

    def __init__(
        self,
        shape: Shape,
        widths: Some[PositiveInt] = (32, 64, 128),
        latent_channels: PositiveInt = 64,
        skips: Literal["none", "add", "concat"] = "none",
        noise: NonNegativeFloat = 0.1,
        noise_scale: Literal["relative", "absolute"] = "relative",
        activation: Literal["gelu", "relu"] = "gelu",
    ) -> None:
        super().__init__()
        _check(widths, latent_channels, skips, noise, noise_scale, activation)
        channels, height, width = shape
        act, widths = ACTIVATIONS[activation], list(widths)
        self.multiple = 2 ** (len(widths) - 1)
        self.skips, self.noise, self.relative = skips, noise, noise_scale == "relative"
        self.latent_shape = (
            latent_channels,
            padded_size(height, self.multiple) // self.multiple,
            padded_size(width, self.multiple) // self.multiple,
        )
        self.first = nn.Sequential(nn.Conv2d(channels, widths[0], 3, padding=1), act())
        self.down = nn.ModuleList(
            nn.Sequential(nn.Conv2d(before, after, 3, stride=2, padding=1), act()) for before, after in pairwise(widths)
        )
        self.to_latent = nn.Conv2d(widths[-1], latent_channels, 3, padding=1)
        self.moments = RunningMoments(1)
        self.from_latent = nn.Sequential(nn.Conv2d(latent_channels, widths[-1], 3, padding=1), act())
        factor = 2 if skips == "concat" else 1
        upwards = widths[::-1]
        self.up = nn.ModuleList(
            nn.Sequential(nn.ConvTranspose2d(factor * before, after, 4, stride=2, padding=1), act())
            for before, after in pairwise(upwards)
        )
        last = nn.Conv2d(factor * widths[0], channels, 3, padding=1)
        self.last = nn.Sequential(last, nn.Sigmoid())
        self.apply(_initialize)
        nn.init.normal_(last.weight, std=0.1 * math.sqrt(2 / last.weight[0].numel()))
        assert last.bias is not None
        nn.init.constant_(last.bias, DARK)  # an error of all pixels at once would drive the sigmoid to its flat end

    def forward(self, x: Tensor, noise: Tensor | None = None) -> Tensor:
        """Rebuilds images.

        Args:
            x: (B, C, H, W) in [0, 1].
            noise: (B, *latent_shape) standard normal draws, scaled here; None for none.

        Returns:
            (B, C, H, W) in [0, 1].
        """
        features = [self.first(pad_to_multiple(x, self.multiple))]
        for layer in self.down:
            features.append(layer(features[-1]))
        z = self.to_latent(features[-1])
        self.moments.update(z.reshape(-1, 1))
        if noise is not None:
            z = z + self.sigma() * noise
        h = self.from_latent(z)
        for layer, feature in zip(self.up, features[:0:-1], strict=True):
            h = layer(self._joined(h, feature))
        rebuilt: Tensor = self.last(self._joined(h, features[0]))
        return crop_to(rebuilt, x.shape[-2], x.shape[-1])

    def sigma(self) -> Tensor:
        """() standard deviation of the latent noise, in units of the latent."""
        scale = self.moments.std[0] if self.relative else self.moments.std.new_ones(())
        return self.noise * scale

    def _joined(self, h: Tensor, feature: Tensor) -> Tensor:
        if self.skips == "none":
            return h
        return h + feature if self.skips == "add" else torch.cat([h, feature], 1)


def _initialize(module: nn.Module) -> None:
    """He initialization, biases 0. A transposed convolution of kernel 4 and stride 2 has 4 weights an input channel."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        transposed = isinstance(module, nn.ConvTranspose2d)
        fan_in = 4 * module.in_channels if transposed else module.weight[0].numel()
        nn.init.normal_(module.weight, std=math.sqrt(2 / fan_in))
        assert module.bias is not None
        nn.init.zeros_(module.bias)


def _check(
    widths: Sequence[int], latent_channels: int, skips: str, noise: float, noise_scale: str, activation: str
) -> None:
    if not widths or min(*widths, latent_channels) < 1:
        raise UserError(
            f"The denoiser has widths={list(widths)} and latent_channels={latent_channels}: give 1 or more of each."
        )
    one_of("The denoiser's skips", skips, SKIPS)
    one_of("The denoiser's noise_scale", noise_scale, SCALES)
    one_of("The denoiser's activation", activation, ACTIVATIONS)
    if not noise >= 0:
        raise UserError(f"The denoiser's noise is {noise}: give a standard deviation of 0 or more.")
