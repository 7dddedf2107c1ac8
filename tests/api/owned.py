"""Networks that a caller brings along, and the digits that they were trained on."""

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn


class Small(nn.Module):
    """A network with batch statistics; its logits may be scaled, which hides its gradients."""

    def __init__(self, scale=1.0, width=16):
        super().__init__()
        self.scale = scale
        self.body = nn.Sequential(
            nn.Conv2d(1, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, 32, 3, 2, 1), nn.ReLU(),
            nn.Flatten(), nn.Linear(128, 10),
        )  # fmt: skip

    def forward(self, x):
        return self.scale * self.body(x)


class Tuple(Small):
    def forward(self, x):
        return super().forward(x), x.mean((1, 2, 3))


class OneLogit(Small):
    def forward(self, x):
        return super().forward(x)[:, :1]


def digits():
    """((x, y) for training, (x, y) for test), x float32 multiples of 1/255, (N, 1, 8, 8)."""
    bunch = load_digits()
    x = (torch.tensor(bunch.images).float()[:, None] / 16 * 255).round() / 255
    y = torch.tensor(bunch.target)
    return (x[:1400], y[:1400]), (x[1400:], y[1400:])


def trained(epochs=8):
    torch.manual_seed(0)
    network = Small()
    (x, y), _ = digits()
    optimizer = torch.optim.Adam(network.parameters(), lr=4e-3)
    for _ in range(epochs):
        for rows in torch.randperm(len(y)).split(64):
            optimizer.zero_grad()
            F.cross_entropy(network(x[rows]), y[rows]).backward()
            optimizer.step()
    optimizer.zero_grad()
    return network.eval()
