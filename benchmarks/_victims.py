"""Networks that the attack benchmarks run against, trained within a minute or two, and how what is left is judged."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustforge.attacks.core.geometry import inside
from robustforge.attacks.pgd import PGD
from robustforge.data.datamodule import ImageData
from robustforge.data.resident import unit_pixels
from robustforge.defenses.base import classify
from robustforge.nn.normalize import Normalize
from robustforge.nn.resnet import resnet18
from robustforge.nn.small_cnn import small_cnn
from robustforge.types import Threat, UserError


@dataclass(frozen=True)
class Victim:
    """A trained network and images that it classifies.

    Attributes:
        name: as printed.
        network: (B, C, H, W) in [0, 1] -> logits (B, K), in eval mode and the contiguous layout that it was built in.
        x: test images.
        y: their labels.
        threat: at which an L-infinity attack breaks some and leaves some.
    """

    name: str
    network: nn.Module
    x: Tensor
    y: Tensor
    threat: Threat

    def some(self, count: int) -> Victim:
        """The same with the first ``count`` images only."""
        return Victim(self.name, self.network, self.x[:count], self.y[:count], self.threat)


def small(robust: bool = True) -> Victim:
    """The project's small CNN at 1 x 28 x 28."""
    return _train("small_cnn 1x28x28", small_cnn((1, 28, 28), 10, (0.3,), (0.3,)), 0.1, 12 if robust else 0)


def wide() -> Victim:
    """The customary MNIST network: conv 5x5 32, conv 5x5 64, dense 1024, each convolution pooled by two."""
    network = nn.Sequential(
        Normalize((0.3,), (0.3,), 1),
        nn.Conv2d(1, 32, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(3136, 1024),
        nn.ReLU(),
        nn.Linear(1024, 10),
    )
    return _train("conv32-conv64-dense1024 1x28x28", network, 0.1, 3)


def residual() -> Victim:
    """ResNet-18 at 3 x 32 x 32, trained on clean images; its budget is small enough to leave some standing."""
    network = resnet18((3, 32, 32), 10, (0.3,) * 3, (0.3,) * 3)
    return _train("ResNet-18 3x32x32", network, 0.02, 0, clean_epochs=1)


@dataclass(frozen=True)
class Left:
    """What an attack left of a victim.

    Attributes:
        standing: percent of all images that are still classified right; images outside the budget count as right.
        distance: mean L2 of those that were right before and are not any more; NaN where there are none.
    """

    standing: float
    distance: float


@torch.no_grad()
def judge(victim: Victim, adversarial: Tensor, threat: Threat) -> Left:
    """Judges adversarial images (N, C, H, W) of either side by the network itself, in float32."""
    right, still = victim.network(victim.x).argmax(1) == victim.y, standing(victim, adversarial, threat)
    fallen = right & ~still
    distance = (adversarial - victim.x).flatten(1).norm(dim=1)[fallen]
    return Left(100 * float(still.float().mean()), float(distance.mean()) if len(distance) else float("nan"))


@torch.no_grad()
def standing(victim: Victim, adversarial: Tensor, threat: Threat) -> Tensor:
    """(N,) bool: images that are still classified right, by the network itself; so are those outside the budget."""
    right, still = (victim.network(x).argmax(1) == victim.y for x in (victim.x, adversarial))
    return still | (right & ~inside(adversarial, victim.x, threat))


def plain_and_robust(count: int) -> tuple[Victim, Victim]:
    """The small CNN trained on clean images and on PGD's, with at most ``count`` test images of MNIST or digits."""
    found = []
    for robust in (False, True):
        data, eps = _mnist_or_digits()
        kind = "adversarially trained" if robust else "plain"
        network = small_cnn((1, 28, 28), 10, (0.3,), (0.3,))
        budget = eps if robust else eps / 3
        victim = _fit(f"{kind} small_cnn on {data.name}", network, data, budget, 5 if robust else 0, clean_epochs=2)
        found.append(victim.some(count))
    return found[0], found[1]


def _mnist_or_digits() -> tuple[ImageData, float]:
    """20,000 training images of MNIST where it is at hand, else the digits; and a budget that leaves some standing."""
    shape = {"shape": (1, 28, 28), "num_classes": 10}
    mnist = ImageData(name="mnist", kind="torchvision", download=False, limit_train=20_000, **shape)
    try:
        mnist.setup()
    except UserError:
        digits = ImageData(name="digits", kind="digits", **shape)
        digits.setup()
        return digits, 0.15
    return mnist, 0.3


def _train(name: str, network: nn.Module, eps: float, robust_epochs: int, clean_epochs: int = 4) -> Victim:
    data = ImageData(name="digits", kind="digits", shape=(1, 28, 28), num_classes=10)
    data.setup()
    return _fit(name, network, data, eps, robust_epochs, clean_epochs)


def _fit(name: str, network: nn.Module, data: ImageData, eps: float, robust_epochs: int, clean_epochs: int) -> Victim:
    """Adam; clean epochs, then epochs on PGD's images at a budget that grows over their first half."""
    torch.manual_seed(0)
    for module in network.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    channels = 3 if "3x32x32" in name else 1
    x, y = _images(data.train.images, channels), data.train.labels
    threat = Threat("linf", eps)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    attack = PGD(steps=5, early_stop=False)
    for epoch in range(clean_epochs + robust_epochs):
        network.train()
        for rows in torch.randperm(len(y)).split(64):
            images = x[rows]
            if epoch >= clean_epochs:
                grown = Threat("linf", eps * min(1.0, 2 * (epoch - clean_epochs + 1) / robust_epochs))
                images = attack(classify(network)["end_to_end"], images, y[rows], grown, seed=epoch).x_adv
            optimizer.zero_grad()
            F.cross_entropy(network(images), y[rows]).backward()
            optimizer.step()
    return Victim(name, network.eval(), _images(data.test.images, channels), data.test.labels, threat)


def _images(images: Tensor, channels: int) -> Tensor:
    """uint8 (N, 1, 28, 28) -> float32 in [0, 1], of 3 x 32 x 32 when three channels are wanted."""
    x = unit_pixels(images)
    return x if channels == 1 else F.pad(x, (2, 2, 2, 2)).repeat(1, 3, 1, 1)
