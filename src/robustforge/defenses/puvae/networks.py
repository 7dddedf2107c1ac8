"""PuVAE's class-conditional variational auto-encoder (Hwang et al. 2019, arXiv:1903.00585)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustforge.nn.padding import crop_to, padded_size
from robustforge.ranges import Classes, PositiveInt, Shape


class ConditionalVAE(nn.Module):
    """Encodes an image under a label to a Gaussian, and decodes a draw of it under the same label.

    Args:
        shape: (C, H, W), any size; at a quarter of it the decoder starts.
        num_classes: K.
        latent: length of z.
        width: channels of the convolutions.
        hidden: units of the two dense layers of the encoder.

    Notes:
        There is no official code. From third-party ones: 7 x 7 convolutions of 32 channels with dilation 2, two dense
        layers of 1,024, mean and softplus standard deviation; the decoder's dense layer of 512 and its transposed
        convolutions 7 x 7, 4 x 4, 4 x 4. Ours: the second and third convolution have stride 2, or the first dense
        layer would hold 25 million weights; the label enters by a dense layer of its own added to the image's, which
        is the same as concatenation and lets the K labels share the convolutions.
    """

    def __init__(
        self,
        shape: Shape,
        num_classes: Classes,
        latent: PositiveInt = 32,
        width: PositiveInt = 32,
        hidden: PositiveInt = 1024,
    ) -> None:
        super().__init__()
        channels, self.height, self.width = shape
        self.num_classes, self.latent = num_classes, latent
        rows, columns = (padded_size(side, 4) // 4 for side in (self.height, self.width))
        layers: list[nn.Module] = []
        for before, stride in ((channels, 1), (width, 2), (width, 2)):
            layers += [nn.Conv2d(before, width, 7, stride=stride, padding=6, dilation=2), nn.ReLU()]
        self.features = nn.Sequential(*layers, nn.Flatten())
        self.of_image = nn.Linear(width * rows * columns, hidden)
        self.of_label = nn.Linear(num_classes, hidden, bias=False)
        self.dense = nn.Sequential(nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU())
        self.mean = nn.Linear(hidden, latent)
        self.spread = nn.Linear(hidden, latent)
        self.decode_dense = nn.Sequential(nn.Linear(latent + num_classes, 512), nn.ReLU())
        self.decoder = nn.Sequential(
            nn.ConvTranspose2d(512, width, (rows, columns)),
            nn.ReLU(),
            nn.ConvTranspose2d(width, width, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(width, channels, 4, stride=2, padding=1),
        )

    def encode(self, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Posterior of z for every image under each of its labels.

        Args:
            x: (B, C, H, W) in [0, 1].
            labels: (B, J) int64 classes; J labels share one pass of the convolutions.

        Returns:
            (mean (B, J, latent), standard deviation (B, J, latent) above 0).
        """
        image = self.of_image(self.features(x))[:, None]
        label = self.of_label(F.one_hot(labels, self.num_classes).to(image.dtype))
        hidden = self.dense(image + label)
        return self.mean(hidden), F.softplus(self.spread(hidden)) + 1e-6

    def decode(self, z: Tensor, labels: Tensor) -> Tensor:
        """(B, J, latent) and (B, J) int64 -> logits of the pixels (B, J, C, H, W)."""
        label = F.one_hot(labels, self.num_classes).to(z.dtype)
        hidden = self.decode_dense(torch.cat([z, label], -1)).flatten(0, 1)[:, :, None, None]
        pixels = crop_to(self.decoder(hidden), self.height, self.width)
        return pixels.reshape(*labels.shape, *pixels.shape[1:])
