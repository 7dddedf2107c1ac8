"""Questions that only private names of PyTorch answer; where a version lacks the name, the answer is the safe one."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def fast_bf16(device: torch.device) -> bool:
    """Whether bf16 is computed in hardware (GPUs since Ampere, CPUs with AMX or AVX512-BF16); else it is emulated.

    Notes:
        False where PyTorch cannot be asked about the CPU: float32 is then slower at worst.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        return False
    try:
        return bool(torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())
    except AttributeError:
        return False


def under_vmap(x: Tensor) -> bool:
    """Whether ``x`` is batched by ``torch.func.vmap``, where a tensor cannot be asked for its memory layout.

    Notes:
        True where PyTorch cannot be asked: callers then leave the layout alone.
    """
    try:
        return bool(torch._C._functorch.is_batchedtensor(x))
    except AttributeError:
        return True


def runs_compiled(networks: nn.Module) -> bool:
    """Whether any of the networks, or a function around them, goes through ``torch.compile``."""
    return any(
        hasattr(part, "_orig_mod")
        or getattr(part, "_compiled_call_impl", None) is not None
        or hasattr(vars(part).get("function"), "_torchdynamo_orig_callable")
        for part in networks.modules()
    )
