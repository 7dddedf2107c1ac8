"""A caller's model as it was found: modes, flags, gradients, parameters, buffers and random state."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from robustforge.float32 import full_float32
from robustforge.types import UserError


@contextmanager
def left_as_found(modules: nn.Module, device: torch.device | str | None = None) -> Iterator[torch.device | None]:
    """Lends a caller's networks, on ``device``, frozen, in eval mode and in the faster memory layout; float32 is full.

    Afterwards, also when an error is raised, the same tensors are in the same places with the same values.

    Args:
        modules: the networks.
        device: where they are wanted; None leaves them where they are.

    Yields:
        The device that they are on; None for networks without parameters.

    Raises:
        UserError: there is no such device, or the networks lie on several while one is wanted.
    """
    with ExitStack() as after:
        after.enter_context(_random_state())
        after.enter_context(full_float32())  # as the commands: both give the same records
        _remember(modules, after)
        places = {tensor.device for tensor in [*modules.parameters(), *modules.buffers()]}
        if device is not None:
            if len(places) > 1:
                raise UserError("The model lies on several devices, so that it cannot be moved: leave device out.")
            places = {device_of(device)}
        place = places.pop() if len(places) == 1 else None
        _lend(modules, place if device is not None else None)
        modules.eval().requires_grad_(False)
        yield place


def device_of(name: torch.device | str) -> torch.device:
    """The device of that name.

    Raises:
        UserError: it is not here.
    """
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"There is no device '{name}' here ({str(error).splitlines()[0]}).") from error


@contextmanager
def _random_state() -> Iterator[None]:
    """Puts the global generators of torch, numpy and Python back."""
    of_numpy, of_python = np.random.get_state(), random.getstate()
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        np.random.set_state(of_numpy)
        random.setstate(of_python)


def _remember(modules: nn.Module, after: ExitStack) -> None:
    """Notes everything that is to be put back."""
    for module in modules.modules():
        after.callback(setattr, module, "training", module.training)
        for name, buffer in module.named_buffers(recurse=False):
            after.callback(_restore_buffer, module, name, buffer, buffer.detach().clone())
    for parameter in modules.parameters():
        gradient = parameter.grad
        values = None if gradient is None else gradient.data
        after.callback(_restore, parameter, parameter.data, parameter.requires_grad, gradient, values)


def _restore(parameter: nn.Parameter, data: Tensor, flag: bool, gradient: Tensor | None, values: Tensor | None) -> None:
    parameter.data = data
    parameter.requires_grad_(flag)
    if gradient is not None and values is not None:
        gradient.data = values
    parameter.grad = gradient


def _restore_buffer(module: nn.Module, name: str, buffer: Tensor, values: Tensor) -> None:
    if getattr(module, name) is not buffer:
        setattr(module, name, buffer)
    if not torch.equal(torch.nan_to_num(buffer), torch.nan_to_num(values)):
        with torch.no_grad():
            buffer.copy_(values)


def _lend(modules: nn.Module, device: torch.device | None) -> None:
    """Other storage for the parameters where it helps: what is here stays as it is, and comes back afterwards."""
    for parameter in modules.parameters():
        fast = torch.channels_last if parameter.dim() == 4 else torch.preserve_format
        parameter.data = parameter.data.to(device or parameter.device, memory_format=fast)
    for module in modules.modules():
        for name, buffer in module.named_buffers(recurse=False):
            if device is not None and buffer.device != device:
                setattr(module, name, buffer.to(device))
