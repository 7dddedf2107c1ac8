"""Networks while they are attacked: in eval mode, their parameters without gradients, and later as they were."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def frozen(modules: nn.Module) -> Iterator[None]:
    """Eval mode and no parameter gradients inside; every module's own mode and every flag restored on the way out."""
    modes = [(module, module.training) for module in modules.modules()]
    flags = [(parameter, parameter.requires_grad) for parameter in modules.parameters()]
    try:
        modules.eval()
        for parameter, _ in flags:
            parameter.requires_grad_(False)
        with torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
