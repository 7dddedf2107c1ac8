"""A network of a user's own that draws random numbers when it answers, as named on the command line."""

import torch
from torch import nn

from robustforge.nn.small_cnn import small_cnn


class Noisy(nn.Module):
    def __init__(self, body, std):
        super().__init__()
        self.body, self.std = body, std

    def forward(self, x):
        return self.body(x + self.std * torch.randn_like(x))


def noisy(*args, **kwargs):
    return Noisy(small_cnn(*args, **kwargs), 0.5)
