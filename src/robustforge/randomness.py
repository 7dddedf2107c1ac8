"""Counter-based random numbers: each image draws its own, whatever the batch, order, device or number of processes.

A number is a hash of (seed, name, restart, sample index, position), so that nothing has state and nothing is shared.
The hash is splitmix64's finalizer (Steele, Lea & Flood 2014, "Fast splittable pseudorandom number generators").
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

_GOLDEN = -7046029254386353131  # 2**64 / golden ratio, as a signed 64-bit integer
_MIX_1 = -4658895280553007687
_MIX_2 = -7723592293110705685


def _shift_right(x: Tensor, bits: int) -> Tensor:
    """Logical right shift of int64 (torch's is arithmetic and would smear the sign bit)."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _mix(x: Tensor) -> Tensor:
    """splitmix64's finalizer on int64 with wrap-around, elementwise."""
    x = (x ^ _shift_right(x, 30)) * _MIX_1
    x = (x ^ _shift_right(x, 27)) * _MIX_2
    return x ^ _shift_right(x, 31)


@dataclass(frozen=True)
class SampleRandom:
    """Random draws addressed by sample.

    Attributes:
        seed: the run's seed.
        name: who draws (an attack's name), so that two attacks never share their noise.
        restart: number of the restart.
    """

    seed: int
    name: str
    restart: int = 0

    def uniform(self, index: Tensor, shape: Sequence[int], stream: int = 0) -> Tensor:
        """Uniform numbers in [0, 1).

        Args:
            index: (B,) int64 sample numbers.
            shape: shape of one sample's draw.
            stream: number of the draw, when one sample draws several times.

        Returns:
            (B, *shape) float32 on ``index``'s device.
        """
        text = f"{self.seed}/{self.name}/{self.restart}/{stream}".encode()
        key = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little", signed=True)
        size = int(torch.Size(shape).numel())
        rows = _mix(index.to(torch.int64) * _GOLDEN + key).unsqueeze(1)
        position = torch.arange(1, size + 1, device=index.device, dtype=torch.int64) * _GOLDEN
        bits = _shift_right(_mix(rows + position), 40)  # the top 24 bits fill a float32 exactly
        return (bits.to(torch.float32) * 2.0**-24).view(len(index), *shape)

    def normal(self, index: Tensor, shape: Sequence[int], stream: int = 0) -> Tensor:
        """Standard normal numbers, (B, *shape) float32, by the inverse cumulative distribution."""
        # never exactly 0 or (the largest value plus half a step rounds up) 1, where the inverse is infinite
        centered = (self.uniform(index, shape, stream) + 2.0**-25).clamp(max=1 - 2.0**-24)
        draws: Tensor = torch.special.ndtri(centered)
        return draws


@contextmanager
def global_draws(seed: int, index: Tensor) -> Iterator[None]:
    """Seeds what networks draw from PyTorch's global generator, and gives the caller's state back afterwards.

    Args:
        seed: of the run.
        index: (B,) sample numbers of the batch. The same batch draws the same numbers; another batch draws others, also
            for an image that both hold, since one generator serves them all.
    """
    with torch.random.fork_rng([index.device] if index.device.type == "cuda" else []):
        torch.manual_seed(hash((seed, int(index[0]))) % 2**63 if len(index) else seed)
        yield


def image_key(x: Tensor) -> Tensor:
    """Numbers that stand for images, to address draws by what an image shows when it has no sample number.

    Args:
        x: (B, C, H, W) float32.

    Returns:
        (B,) int64, a hash of each image's pixels: the same for the same pixels, in any batch and on any device.
    """
    bits = (x.detach().float() + 0.0).flatten(1).contiguous().view(torch.int32).to(torch.int64)  # -0.0 becomes 0.0
    position = torch.arange(1, bits.shape[1] + 1, device=x.device, dtype=torch.int64) * _GOLDEN
    return _mix(bits + position).sum(1)
