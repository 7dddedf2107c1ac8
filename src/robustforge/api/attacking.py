"""``rf.attack``: one attack on a model that one has."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from robustforge.api.inputs import as_images, as_labels
from robustforge.api.untouched import left_as_found
from robustforge.attacks.core.attack import Attack
from robustforge.attacks.core.batching import batch_within
from robustforge.attacks.core.models import Network, as_surface
from robustforge.attacks.core.surface import Surface
from robustforge.config import named
from robustforge.data.resident import unit_pixels
from robustforge.types import AttackResult, Member, Threat, Trace, UserError

MOST = 512  # images in memory at a time, unless told otherwise
WIDEST = 20_000  # times an image's own bytes: more than any usual network keeps for its backward pass


def attack(
    model: Callable[..., Any],
    x: Any,
    y: Any,
    method: str | Attack = "pgd",
    *,
    eps: float | str,
    norm: str = "linf",
    output: int | str | None = None,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    surface: str = "end_to_end",
    threshold: float | None = None,
    seed: int = 0,
    device: torch.device | str | None = None,
    batch_size: int | None = None,
    memory_gb: float = 4.0,
    progress: bool = True,
    **settings: Any,
) -> AttackResult:
    """Attacks images, however many.

    The model may be in any mode, on any device and of any floating type. It is left as it was found: modes, gradients,
    parameters, buffers and random state, also when an error is raised.

    Args:
        model: (B, C, H, W) in [0, 1] -> logits (B, K); or a defense, see :func:`robustforge.system`.
        x: (N, C, H, W) clean images, a tensor or array: floats in [0, 1], or uint8, which are divided by 255.
        y: (N,) true labels, integers in 0 .. K-1.
        method: name of a file in conf/attack (``pgd``, ``auto``, ``torchattacks/APGD``), or an attack object.
        eps: radius in pixel units of [0, 1]; a fraction may be given as text, ``"8/255"``.
        norm: ``linf``, ``l2``, ``l1``, ``l0`` or ``l0_pixels``, see :class:`robustforge.types.Threat`.
        output: where in the model's answer the logits are: an index, a key or an attribute; None: it is a tensor.
        mean: normalization of a model that does not normalize for itself, pixel units, one value or one a channel.
        std: likewise.
        surface: which of a defense's surfaces is attacked.
        threshold: risk above which a defense rejects; None accepts everything.
        seed: of the attack's draws.
        device: where to run, the model too; None: where the model is.
        batch_size: images at a time; None: 512, or as many as fit ``memory_gb``. Results do not depend on it.
        memory_gb: largest memory in GiB that a batch may take when no batch size is given.
        progress: show a bar, on a terminal only.
        **settings: of the attack that are to be otherwise, such as ``steps=100``.

    Returns:
        Adversarial images (N, C, H, W) float32 in [0, 1] inside the ball, success (N,), passes and trace, on the device
        of ``x``.

    Raises:
        UserError: images, labels, answers, names or settings that make no sense; the message says what to do.

    Example:
        >>> import torch
        >>> network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3))
        >>> x, y = torch.rand(8, 1, 4, 4), torch.arange(8) % 3
        >>> result = attack(network, x, y, "pgd", eps=8 / 255, steps=10)
        >>> result.x_adv.shape, bool(((result.x_adv - x).abs() <= 8 / 255 + 1e-6).all())
        (torch.Size([8, 1, 4, 4]), True)
    """
    threat = Threat(norm, eps)  # type: ignore[arg-type]
    chosen = _chosen(method, settings)
    images = as_images(x)
    labels = as_labels(y, len(images))
    target = _surface(model, surface, output, mean, std)
    with left_as_found(target.modules, device) as place:
        where = place or torch.device(device or images.device)
        size = batch_size or fitting(target, images, labels, where, memory_gb)
        parts = []
        for start in _starts(len(images), size, chosen.name, progress):
            rows = torch.arange(start, min(start + size, len(images)))
            part, answers = unit_pixels(images[start : start + size].to(where)), labels[start : start + size].to(where)
            parts.append(chosen(target, part, answers, threat, index=rows.to(where), seed=seed, threshold=threshold))
    return _joined(parts, images.device)


def fitting(surface: Surface, images: Tensor, labels: Tensor, device: torch.device, memory_gb: float) -> int:
    """Images of a batch that an attack may have in ``memory_gb`` GiB, at most 512; measured unless they surely fit.

    Args:
        surface: what is attacked.
        images: (N, C, H, W) of which two are tried.
        labels: (N,).
        device: where it runs.
        memory_gb: the bound.
    """
    if not memory_gb > 0:
        raise UserError(f"memory_gb is {memory_gb}: give a number of GiB above 0.")
    bound = memory_gb * 2**30
    if len(images) == 1 or 4 * images[:MOST].numel() * WIDEST <= bound:
        return min(len(images), MOST)
    two, answers = unit_pixels(images[:2].to(device)), labels[:2].to(device)
    return batch_within(surface, two, answers, bound, MOST)


def _chosen(method: str | Attack, settings: dict[str, Any]) -> Attack:
    if isinstance(method, str):
        return named.attack(method, **settings)
    if not callable(method):
        raise UserError(f"An attack must be a name or an attack object, and this is {method!r:.80}.")
    if not settings:
        return method
    if not is_dataclass(method) or isinstance(method, type):
        raise UserError("Settings can be changed of an attack object that is a dataclass: give it as it is to be.")
    known = [field.name for field in fields(method)]
    named.check_known(f"Attack {method.name}", settings, known)
    changed: Attack = replace(method, **settings)
    return changed


def _surface(model: Any, name: str, output: Any, mean: Any, std: Any) -> Surface:
    plain = not isinstance(model, Surface) and not hasattr(model, "surfaces")
    if plain:
        model = Network(model, output, mean, std)
    elif not (output is mean is std is None):
        raise UserError("output, mean and std are for plain models, and this is a defense: leave them out.")
    if name == "end_to_end":
        return as_surface(model)
    found = {} if plain or isinstance(model, Surface) else model.surfaces()
    if name not in found:
        raise UserError(f"There is no surface '{name}': this model has {', '.join(found) or 'end_to_end'}.")
    chosen: Surface = found[name]
    return chosen


def _starts(total: int, size: int, name: str, progress: bool) -> Iterator[int]:
    if size < 1:
        raise UserError(f"batch_size is {size}: give 1 or more.")
    quiet = not progress or total <= size or not sys.stderr.isatty()
    starts = range(0, total, size)
    yield from track(starts, f"{name}: batches", console=Console(stderr=True), disable=quiet)


def _joined(parts: list[AttackResult], device: torch.device) -> AttackResult:
    def joined(name: str) -> Tensor:
        return torch.cat([getattr(part, name) for part in parts]).to(device)

    trace, members = _joined_trace(parts, device), _joined_members(parts, device)
    return AttackResult(joined("x_adv"), joined("success"), joined("forwards"), joined("backwards"), trace, members)


def _joined_members(parts: list[AttackResult], device: torch.device) -> tuple[Member, ...]:
    """Members of all batches; one that some batch did without, as nothing was left, spent nothing there."""
    longest = max(parts, key=lambda part: len(part.members)).members

    def joined(number: int, name: str) -> Tensor:
        found = [
            getattr(part.members[number], name)
            if number < len(part.members)
            else torch.zeros_like(part.success if name in ("attacked", "broken") else part.forwards)
            for part in parts
        ]
        return torch.cat(found).to(device)

    return tuple(
        Member(
            one.name,
            joined(number, "attacked"),
            joined(number, "broken"),
            joined(number, "forwards"),
            joined(number, "backwards"),
            any(part.members[number].sampled for part in parts if number < len(part.members)),
        )
        for number, one in enumerate(longest)
    )


def _joined_trace(parts: list[AttackResult], device: torch.device) -> Trace | None:
    """Traces of all batches; NaN for those where no gradient was taken."""
    if all(part.trace is None for part in parts):
        return None

    def joined(name: str) -> Tensor:
        unknown = [torch.full(part.success.shape, float("nan"), device=part.success.device) for part in parts]
        found = [
            nan if part.trace is None else getattr(part.trace, name) for part, nan in zip(parts, unknown, strict=True)
        ]
        return torch.cat(found).to(device)

    return Trace(*(joined(field.name) for field in fields(Trace)))
