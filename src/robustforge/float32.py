"""Float32 that is float32 on every device: verdicts and thresholds are computed in it.

NVIDIA GPUs since Ampere round the factors of float32 convolutions to TensorFloat-32 (10 bits of mantissa) unless they
are told not to, and PyTorch leaves that on. Images that lie on a decision boundary, as those of minimum-norm attacks
do, would then be judged by another function than on a CPU. Training and the attacks' own passes are in bf16 where that
is fast, and lose nothing.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


def use_full_float32() -> None:
    """No TensorFloat-32 in this process from here on."""
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False


@contextmanager
def full_float32() -> Iterator[None]:
    """No TensorFloat-32 inside the block; afterwards as it was."""
    products, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    use_full_float32()
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(products)
        torch.backends.cudnn.allow_tf32 = convolutions
