"""A caller's functions as a defense: a classifier, maybe behind a purifier, maybe with a detector beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from robustforge.attacks.core.models import Function, Network
from robustforge.attacks.core.surface import Surface, bpda
from robustforge.defenses.base import Defense, classify
from robustforge.functions import describe_function
from robustforge.types import DefenseOutput, UserError


class System(Defense):
    """What :func:`system` makes.

    Args:
        logits: the classifier.
        risk: the detector, or None.
        purify: what comes before the classifier, or None.
    """

    def __init__(self, logits: Network, risk: Function | None = None, purify: Function | None = None) -> None:
        super().__init__()
        self.network, self.detector, self.purifier = logits, risk, purify

    def forward(self, x: Tensor) -> DefenseOutput:
        """(B, C, H, W) in [0, 1] -> logits (B, K), risk (B,) and purified images (B, C, H, W) where there are such."""
        purified = None if self.purifier is None else self._purified(x)
        risk = None if self.detector is None else _one_each(self.detector(x), len(x))
        return DefenseOutput(self.network(x if purified is None else purified), risk, purified)

    def _purified(self, x: Tensor) -> Tensor:
        assert self.purifier is not None
        images = self.purifier(x)
        if not isinstance(images, Tensor) or images.shape != x.shape:
            kind = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
            raise UserError(
                f"purify must give images of the shape {tuple(x.shape)} that it was given, and gives {kind}."
            )
        return images.float()

    def surfaces(self) -> dict[str, Surface]:
        """The whole system; with a purifier also one whose gradient passes it by (BPDA)."""
        surfaces = super().surfaces()
        if self.purifier is not None:
            surfaces["bpda"] = bpda(self._purified, self.network, surfaces["end_to_end"])
        return surfaces

    def systems(self) -> dict[str, dict[str, Surface]]:
        """The classifier alone, where it has a purifier."""
        return {} if self.purifier is None else {"undefended": classify(self.network)}

    def classifier_network(self) -> nn.Module | None:
        """The classifier, where it is all that there is."""
        return self.network if self.purifier is None and self.detector is None else None

    def describe(self) -> dict[str, Any]:
        """What its functions are made of, for keys."""
        parts = {"logits": self.network, "risk": self.detector, "purify": self.purifier}
        found = {name: None if part is None else describe_function(part.function) for name, part in parts.items()}
        return {**found, "output": self.network.output, "mean": self.network.mean, "std": self.network.std}


def system(
    logits: Callable[..., Any],
    risk: Callable[..., Any] | None = None,
    purify: Callable[..., Any] | None = None,
    *,
    output: int | str | None = None,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
) -> Defense:
    """A defense of functions that one has: to be attacked or evaluated in place of a model.

    Args:
        logits: classifier, (B, C, H, W) in [0, 1] -> (B, K); it is given what ``purify`` makes.
        risk: detector, the images as they come in (B, C, H, W) -> (B,), higher = more suspicious; None: it never
            rejects. :func:`robustforge.evaluate` fits the threshold on ``calibration``.
        purify: (B, C, H, W) -> the same shape, in front of the classifier; None: nothing.
        output: where in the classifier's answer the logits are: an index, a key or an attribute.
        mean: of the classifier's normalization, one value a channel; None: it normalizes for itself.
        std: likewise.

    Returns:
        A defense that is attacked end to end, and around its purifier (surface ``bpda``).

    Raises:
        UserError: a part cannot be called.

    Example:
        >>> import torch
        >>> network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3))
        >>> detector = system(logits=network, risk=lambda x: x.flatten(1).std(1))
        >>> detector(torch.rand(2, 1, 4, 4)).risk.shape
        torch.Size([2])
    """
    parts = [None if function is None else Function(function) for function in (risk, purify)]
    return System(Network(logits, output, mean, std), *parts)


def as_defense(model: Any, **settings: Any) -> Defense:
    """A defense as it is; any other callable as one.

    Args:
        model: a defense, or (B, C, H, W) -> (B, K).
        **settings: ``output``, ``mean`` and ``std`` of :class:`robustforge.attacks.core.models.Network`.

    Raises:
        UserError: settings for a defense, or what is no model.
    """
    given = [name for name, value in settings.items() if value is not None]
    if not isinstance(model, Defense):
        return system(model, **settings)
    if given:
        raise UserError(
            f"{', '.join(given)} are for plain models, and a {type(model).__name__} is a defense: leave them."
        )
    return model


def _one_each(risk: Any, count: int) -> Tensor:
    if not isinstance(risk, Tensor) or risk.numel() != count:
        kind = tuple(risk.shape) if isinstance(risk, Tensor) else type(risk).__name__
        raise UserError(f"risk must give one number for each of {count} images, and gives {kind}.")
    return risk.reshape(count).to(torch.float32)
