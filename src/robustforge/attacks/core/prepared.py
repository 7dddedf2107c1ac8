"""Weights prepared for the passes of an attack in bf16: cast once, channels last, batch norm folded into convolutions.

Autocast casts frozen weights anew in every pass, and batch norm after a convolution is a convolution. What the networks
hold is never changed: the prepared weights stand in their places during an attacker's pass and not a moment longer, so
that whatever calls the networks (a classifier, a purifier before it, functions of both) profits, and the system is
judged by the weights that it has.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.nn.utils.fusion import fuse_conv_bn_weights

from robustforge.accel import runs_compiled
from robustforge.attacks.core.surface import Surface
from robustforge.nn.gray_conv import GrayConv2d

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, GrayConv2d)
_CAST = (*_CONVOLUTIONS, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Linear)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_MISSING = object()

Pair = tuple[nn.Module, nn.Module]  # a convolution and the batch norm of its answer
Place = tuple[dict[str, Any], str, Any]  # (namespace, name in it, what stands there during a pass)


@dataclass
class Seen:
    """What one pass under autocast showed of the layers.

    Attributes:
        calls: how often each layer was called.
        bf16: how often it answered in bf16.
        followed: where a batch norm was given the very answer that a convolution had just made: the two, and the node
            of that answer in the graph of gradients, None without one; emptied by :meth:`graph`.
        alone: how often it was, and nothing else used the answer; None as long as no graph has told.
    """

    calls: Counter[nn.Module] = field(default_factory=Counter)
    bf16: Counter[nn.Module] = field(default_factory=Counter)
    followed: list[tuple[Pair, Node | None]] = field(default_factory=list)
    alone: Counter[Pair] | None = None
    _last: tuple[nn.Module, Tensor, int] | None = None

    def casts(self) -> list[nn.Module]:
        """Layers that always computed in bf16 with weights in float32, for which a cast beforehand changes no bit."""
        return [layer for layer, count in self.calls.items() if type(layer) in _CAST and self.bf16[layer] == count]

    def pairs(self) -> list[Pair]:
        """Convolutions in bf16 whose answers went to one batch norm and nowhere else, and which alone it follows."""
        return [
            (conv, norm)
            for (conv, norm), count in (self.alone or {}).items()
            if self.bf16[conv] == self.calls[conv] == self.calls[norm] == count and _plain(conv) and _plain(norm)
        ]

    def before(self, norm: nn.Module, given: tuple[Any, ...]) -> None:
        """Hook before the forward pass of a batch norm."""
        self.calls[norm] += 1
        if self._last is not None and given and given[0] is self._last[1]:
            conv, answer, version = self._last
            if answer._version == version:  # nobody has written into it since
                self.followed.append(((conv, norm), answer.grad_fn))

    def after(self, layer: nn.Module, _: tuple[Any, ...], answer: Tensor) -> None:
        """Hook after the forward pass of a layer with weights."""
        self.calls[layer] += 1
        self.bf16[layer] += answer.dtype == torch.bfloat16
        self._last = (layer, answer, answer._version) if type(layer) in _CONVOLUTIONS else None

    def graph(self, ends: Iterable[Tensor]) -> None:
        """Takes in what the pass led to: the graph of gradients behind it says who uses what."""
        users, seen, todo = Counter[Node](), set[Node](), [end.grad_fn for end in ends]
        while todo:
            node = todo.pop()
            if node is not None and node not in seen:
                seen.add(node)
                todo += [source for source, _ in node.next_functions]
                users.update(source for source, _ in node.next_functions if source is not None)
        self.alone = Counter(pair for pair, node in self.followed if node is not None and users[node] == 1)
        self.followed.clear()


class Prepared:
    """The prepared weights of the networks behind a surface.

    The first pass is only watched: which layers autocast runs in bf16, and which batch norm follows which convolution;
    if it was without gradients, so is the first with them. An attack of a single pass therefore pays nothing.

    Args:
        surface: whose networks, frozen and in eval mode while there are passes.

    Notes:
        Cast weights give bit for bit what autocast gives; folded ones are rounded to bf16 in another place. Compiled
        networks are left alone: what was compiled may not look at its weights again.
    """

    def __init__(self, surface: Surface) -> None:
        self._networks = [] if surface.compiled or runs_compiled(surface.modules) else [*surface.modules.modules()]
        self._seen: Seen | None = None
        self._watching: Seen | None = None
        self._places: list[Place] | None = None

    @contextmanager
    def passing(self, bf16: bool, graph: bool = False) -> Iterator[None]:
        """Around an attacker's pass, forward and backward: prepared weights are where the networks look for theirs.

        Args:
            bf16: whether the pass is under autocast; else nothing is done.
            graph: whether it is differentiated; :meth:`led_to` is then told of its results.
        """
        if not bf16:
            yield
        elif self._seen is None or (graph and self._seen.alone is None):
            with watching(self._networks) as self._watching:
                yield
            self._seen, self._watching, self._places = self._watching, None, None
        else:
            if self._places is None:
                self.refresh()
            with placed(self._places or []):
                yield

    def led_to(self, ends: Iterable[Tensor]) -> None:
        """Told of the results of a pass that is to be differentiated."""
        if self._watching is not None:
            self._watching.graph(ends)

    @torch.no_grad()
    def refresh(self) -> None:
        """Prepares the weights that the networks have now: after the first pass, or after a step of their training."""
        if self._seen is not None:
            pairs = self._seen.pairs()
            folded = {conv for conv, _ in pairs}
            rest = [layer for layer in self._seen.casts() if layer not in folded]
            self._places = [*_folded(pairs), *(place for layer in rest for place in _cast(layer, *_weights(layer)))]


@contextmanager
def watching(layers: Sequence[nn.Module]) -> Iterator[Seen]:
    """Notes what ``layers`` do in the pass inside."""
    seen = Seen()
    with ExitStack() as hooks:
        for layer in layers:
            if type(layer) in _CAST and all(one is None or one.dtype == torch.float32 for one in _weights(layer)):
                hooks.callback(layer.register_forward_hook(seen.after).remove)
            elif isinstance(layer, _NORMS) and not layer.training and layer.running_mean is not None:
                hooks.callback(layer.register_forward_pre_hook(seen.before).remove)
        yield seen
    seen._last = None


@contextmanager
def placed(places: Sequence[Place]) -> Iterator[None]:
    """Puts something else in the places inside, and back what was there."""
    found = [(space, name, space.get(name, _MISSING)) for space, name, _ in places]
    try:
        for space, name, value in places:
            space[name] = value
        yield
    finally:
        for space, name, value in found:
            if value is _MISSING:
                space.pop(name, None)
            else:
                space[name] = value


def _plain(layer: nn.Module) -> bool:
    """Whether nobody else has a hand in its forward pass."""
    return not (layer._forward_hooks or layer._forward_pre_hooks or "forward" in vars(layer))


def _weights(layer: nn.Module) -> tuple[Tensor | None, Tensor | None]:
    return layer._parameters.get("weight"), layer._parameters.get("bias")


def _folded(pairs: Sequence[Pair]) -> list[Place]:
    """Convolutions that do what their batch norms did, and batch norms that do nothing."""
    places: list[Place] = []
    for conv, norm in pairs:
        assert isinstance(norm, _NORMS)
        statistics = norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
        places += _cast(conv, *fuse_conv_bn_weights(*_weights(conv), *statistics))  # type: ignore[arg-type]
        places.append((vars(norm), "forward", _same))
    return places


def _cast(layer: nn.Module, weight: Tensor | None, bias: Tensor | None) -> list[Place]:
    """Weights in bf16, in the places of a layer's."""
    given = {name: value for name, value in (("weight", weight), ("bias", bias)) if value is not None}
    return [(layer._parameters, name, nn.Parameter(_bf16(value), requires_grad=False)) for name, value in given.items()]


def _bf16(weight: Tensor) -> Tensor:
    cast = weight.detach().to(torch.bfloat16)
    return cast.contiguous(memory_format=torch.channels_last) if cast.dim() == 4 else cast


def _same(x: Tensor) -> Tensor:
    return x
