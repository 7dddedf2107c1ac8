"""Weights as others store them: state dictionaries in .pt and .safetensors files, wrapped and prefixed."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from robustforge.attacks.core.models import Function
from robustforge.types import UserError

log = logging.getLogger(__name__)

WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "network")  # keys under which checkpoints keep it
# of DataParallel, of Lightning modules and wrappers, of torch.compile, of what a stage left in the store
PREFIXES = ("module.", "model.", "_orig_mod.", "undefended.")
_SHOWN = 3
_EXAMPLE = "+defense.network.num_classes=10"


def load_weights(
    network: nn.Module, path: str | Path, setting: str = "defense.weights", example: str = _EXAMPLE
) -> None:
    """Loads a file of weights into a network.

    Args:
        network: whose parameters and buffers are overwritten.
        path: ``.safetensors``, or what ``torch.save`` wrote, of which tensors and plain values are read (nothing in it
            is run). The state dictionary may lie under a key such as ``state_dict``, and all its names may have a
            prefix such as ``module.``, which is stripped and said.
        setting: that names the file, for messages.
        example: of a setting that gives another network, for messages.

    Raises:
        UserError: no such file, one that cannot be read, or weights that are not this network's.
    """
    load_state(network, _state(_read(Path(path), setting), path), f"'{path}'", example)


def load_state(network: nn.Module, state: Mapping[str, Tensor], where: str, example: str = _EXAMPLE) -> None:
    """Loads a state dictionary into a network.

    Args:
        network: whose parameters and buffers are overwritten; one that is wrapped with its normalization stands for the
            network inside.
        state: by name; a prefix that all names have is stripped and said.
        where: its source, for messages.
        example: of a setting that gives another network, for messages.

    Raises:
        UserError: weights that are not this network's: missing, unexpected and misshapen ones are named.
    """
    network = unwrapped(network)
    wanted = network.state_dict()
    state = _stripped(dict(state), wanted, where)
    missing = [name for name in wanted if name not in state and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in state if name not in wanted]
    misshapen = [
        f"{name} {tuple(value.shape)} for {tuple(wanted[name].shape)}"
        for name, value in state.items()
        if name in wanted and value.shape != wanted[name].shape
    ]
    problems = {"lacks": missing, "has besides": unexpected, "has another shape of": misshapen}
    told = [f"{what} {_some(found)}" for what, found in problems.items() if found]
    if told:
        raise UserError(
            f"The weights in {where} are not those of this {type(network).__name__}: {where} {', and '.join(told)}. "
            f"Give the network with the arguments that it was trained with (such as {example})."
        )
    network.load_state_dict(state, strict=False)


def unwrapped(network: nn.Module) -> nn.Module:
    """The network itself, without what :class:`robustforge.attacks.core.models.Network` puts around it."""
    inside = list(network.networks) if isinstance(network, Function) else []
    return inside[0] if len(inside) == 1 else network


def _read(path: Path, setting: str) -> Any:
    if not path.is_file():
        raise UserError(f"There is no file '{path}': set {setting} to the network's weights (.pt, .safetensors).")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"'{path}' holds more than tensors, and loading it would run code: save it again with "
            "torch.save(network.state_dict(), path)."
        ) from error
    except Exception as error:  # a damaged file ends in many types of error
        raise UserError(f"'{path}' cannot be read ({type(error).__name__}: {error}): save it again.") from error


def _state(found: Any, path: str | Path) -> dict[str, Tensor]:
    """The state dictionary, from where the checkpoint keeps it."""
    for key in WRAPPERS:
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
            break
    if not isinstance(found, Mapping) or not found or not all(isinstance(value, Tensor) for value in found.values()):
        kind = f"the keys {_some(list(found))}" if isinstance(found, Mapping) else f"a {type(found).__name__}"
        raise UserError(f"'{path}' holds {kind} and no state dictionary: save network.state_dict().")
    return {str(name): value for name, value in found.items()}


def _stripped(state: dict[str, Tensor], own: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """Without prefixes that all names have and the network's ``own`` have not."""
    stripped = ""
    while not set(state) & set(own):
        prefix = next((one for one in PREFIXES if all(name.startswith(one) for name in state)), None)
        if prefix is None:
            break
        state = {name.removeprefix(prefix): value for name, value in state.items()}
        stripped += prefix
    if stripped:
        log.info("%s: the prefix '%s' was stripped from every name", where, stripped)
    return state


def _some(names: Sequence[Any]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(str(name) for name in names[:_SHOWN]) + more
