"""Whatever a caller calls a model, as a network that answers float32 logits, and as a surface."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from robustforge.attacks.core.inputs import check_answer
from robustforge.attacks.core.surface import Surface, end_to_end
from robustforge.types import DefenseOutput, Threat, UserError

_DEEPEST = 4  # functions in functions in which networks are looked for


def as_surface(model: Any) -> Surface:
    """What an attack differentiates, of a surface, a defense, a network or any other callable.

    Args:
        model: a :class:`Surface`; a defense, which is attacked end to end; or (B, C, H, W) -> logits (B, K).

    Raises:
        UserError: none of these.
    """
    if isinstance(model, Surface):
        return model
    if hasattr(model, "surfaces"):
        whole: Surface = model.surfaces()["end_to_end"]
        return whole
    network = Network(model)
    return end_to_end(lambda x: DefenseOutput(network(x)), network)


def as_threat(threat: Threat | float | str) -> Threat:
    """A budget; a bare radius is one in the L-infinity norm."""
    return threat if isinstance(threat, Threat) else Threat("linf", threat)  # type: ignore[arg-type]


class Function(nn.Module):
    """A callable with the networks behind it, so that they can be frozen, put in eval mode, hashed and moved.

    Images are cast to the type of the networks' parameters, where all of them have one.

    Args:
        function: a network, or a function or object that calls some: they are looked for in closures, globals that it
            names, partials, the object of a bound method, and attributes.

    Raises:
        UserError: it cannot be called.
    """

    function: Callable[..., Any]

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        if not callable(function):
            raise UserError(f"A model must be callable, (B, C, H, W) -> logits (B, K), and this is {function!r:.80}.")
        self.networks = nn.ModuleList(modules_of(function))
        self.__dict__["function"] = function  # past nn.Module, which would register a network a second time
        dtypes = {p.dtype for p in self.networks.parameters() if p.is_floating_point()}
        self.dtype = dtypes.pop() if len(dtypes) == 1 else None

    def forward(self, x: Tensor) -> Any:
        """Whatever the function answers to images (B, C, H, W)."""
        if self.dtype in (None, torch.float32):
            return self.function(x)
        with torch.autocast(x.device.type, enabled=False):  # it has chosen its precision itself
            return self.function(x.to(self.dtype))


class Network(Function):
    """A classifier that answers float32 logits.

    Args:
        model: (B, C, H, W) -> logits (B, K), or a tuple or mapping that holds them.
        output: where in the answer the logits are: an index, a key or an attribute; None for a bare tensor.
        mean: one value a channel, subtracted from images in [0, 1]; None for a model that normalizes for itself.
        std: divides them, likewise.

    Raises:
        UserError: it cannot be called, or only one of ``mean`` and ``std`` is given.
    """

    def __init__(
        self,
        model: Callable[..., Any],
        output: int | str | None = None,
        mean: float | Sequence[float] | None = None,
        std: float | Sequence[float] | None = None,
    ) -> None:
        super().__init__(model)
        if (mean is None) != (std is None):
            raise UserError("Normalization needs both mean and std, in pixel units of [0, 1]: give both, or none.")
        if not all(value > 0 for value in _values(std)):
            raise UserError(f"std is {std}: give positive numbers, in pixel units of [0, 1].")
        self.output = output
        self.mean, self.std = _values(mean), _values(std)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 1] -> logits (B, K) float32.

        Raises:
            UserError: the answer is not such, or holds several values and ``output`` was not given; or the images have
                another number of channels than ``mean`` and ``std``.
        """
        logits = pick(super().forward(self._normalized(x)), self.output)
        check_answer(logits, len(x))
        return torch.as_tensor(logits).float()

    def _normalized(self, x: Tensor) -> Tensor:
        if not self.mean:
            return x
        if {len(self.mean), len(self.std)} - {1, x.shape[1]}:
            raise UserError(
                f"The images have {x.shape[1]} channels, mean {len(self.mean)} and std {len(self.std)} values: give "
                "one for all channels, or one each."
            )
        mean, std = (torch.tensor(values, device=x.device).view(-1, 1, 1) for values in (self.mean, self.std))
        return (x - mean) / std


def pick(answer: Any, output: int | str | None) -> Any:
    """The logits in what a model answers.

    Args:
        answer: of the model.
        output: an index, a key or an attribute; None for the answer itself.

    Raises:
        UserError: the answer holds several values and ``output`` does not name one of them.
    """
    if output is None and isinstance(answer, Tensor):
        return answer
    if isinstance(answer, DefenseOutput) and answer.risk is None:
        return answer.logits
    if isinstance(answer, Mapping):
        places: list[Any] = list(answer)
    elif isinstance(answer, tuple | list):
        places = list(range(len(answer)))
    else:
        places = [name for name, value in getattr(answer, "__dict__", {}).items() if isinstance(value, Tensor)]
    kind = f"a {type(answer).__name__} with {', '.join(map(repr, places)) or 'nothing'}"
    if output is None:
        raise UserError(f"The model answers {kind}: say where the logits are, as in output={(places or [0])[0]!r}.")
    try:
        by_name = isinstance(output, str) and not isinstance(answer, Mapping)
        return getattr(answer, str(output)) if by_name else answer[output]
    except (AttributeError, KeyError, IndexError, TypeError) as error:
        raise UserError(f"The model answers {kind}, and output={output!r} is none of them.") from error


def modules_of(function: Any) -> list[nn.Module]:
    """The networks that a callable calls, as far as they can be found; each once, none inside another."""
    found = list({id(module): module for module in _modules(function, _DEEPEST)}.values())
    inner = {id(part) for module in found for part in list(module.modules())[1:]}
    return [module for module in found if id(module) not in inner]


def _modules(value: Any, depth: int) -> Iterator[nn.Module]:
    if isinstance(value, nn.Module):
        yield value
    elif depth and not isinstance(value, type | str | bytes | Tensor):
        for part in _parts(value):
            yield from _modules(part, depth - 1)


def _parts(value: Any) -> Iterator[Any]:
    """What a callable or container holds on to."""
    if isinstance(value, functools.partial):
        yield from (value.func, *value.args, *value.keywords.values())
    elif inspect.ismethod(value):
        yield from (value.__self__, value.__func__)
    elif inspect.isfunction(value):
        named = (value.__globals__.get(name) for name in value.__code__.co_names)
        yield from (*_cells(value), *named, *(value.__defaults__ or ()), *value.__dict__.values())
    elif isinstance(value, Mapping):
        yield from value.values()
    elif isinstance(value, list | tuple | set):
        yield from value
    elif not inspect.ismodule(value):
        yield from getattr(value, "__dict__", {}).values()


def _cells(function: Any) -> Iterator[Any]:
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # a variable that is not assigned yet
            continue


def _values(given: float | Sequence[float] | None) -> list[float]:
    if given is None:
        return []
    return [float(given)] if isinstance(given, int | float) else [float(value) for value in given]
