"""Adversarial training as a plain float32 loop of torchattacks and torchvision, which ours is measured against."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
import torchattacks
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from robustforge.nn.gray_conv import GrayConv2d

WORKERS = 2


class PilImages(Dataset[tuple[Tensor, int]]):
    """Images made from an array one at a time, as torchvision's data sets do.

    Args:
        images: (N, H, W, C) uint8.
        labels: (N,).
        transforms: before the conversion to tensors.
    """

    def __init__(self, images: np.ndarray, labels: np.ndarray, transforms: tuple[nn.Module, ...]) -> None:
        self.images, self.labels = images, labels
        self.transform = v2.Compose([*transforms, v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.images[i].squeeze())), int(self.labels[i])


def plain_loop(
    network: nn.Module,
    eps: float,
    transforms: tuple[nn.Module, ...],
    images: np.ndarray,
    labels: np.ndarray,
    batch: int,
    steps: int,
) -> Iterator[None]:
    """Adversarial training, one batch at a time: float32, default layout, torchattacks.PGD, torchvision's DataLoader.

    Args:
        network: trained in place.
        eps: L-infinity budget, [0, 1] pixels.
        transforms: before the conversion to tensors.
        images: (N, H, W, C) uint8.
        labels: (N,).
        batch: images a batch.
        steps: of the attack.
    """
    network = ordinary(network)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
    attack = torchattacks.PGD(network, eps=eps, alpha=2.5 * eps / steps, steps=steps)
    loader = DataLoader(
        PilImages(images, labels, transforms),
        batch,
        shuffle=True,
        num_workers=WORKERS,
        persistent_workers=WORKERS > 0,
    )
    while True:
        for x, y in loader:
            network.train()
            attacked = attack(x, y)
            optimizer.zero_grad()
            F.cross_entropy(network(torch.cat([x, attacked])), torch.cat([y, y])).backward()
            optimizer.step()
            yield


def ordinary(network: nn.Module) -> nn.Module:
    """The network of PyTorch's own layers, as a plain loop would have it; changed in place."""
    for parent in list(network.modules()):
        for name, layer in parent.named_children():
            if isinstance(layer, GrayConv2d):
                plain = nn.Conv2d(
                    1, layer.out_channels, layer.kernel_size, layer.stride, layer.padding, bias=layer.bias is not None
                )
                plain.load_state_dict(layer.state_dict())
                setattr(parent, name, plain)
    return network
