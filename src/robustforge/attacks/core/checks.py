"""What the engine refuses: images, logits and settings that would make an attack report nonsense."""

from __future__ import annotations

from collections.abc import Collection

from torch import Tensor

from robustforge.types import Norm, Threat, UserError

PRECISIONS = ("auto", "float32", "bf16")


def check_logits(logits: Tensor) -> None:
    """Raises UserError for logits that are not finite."""
    if not bool(logits.isfinite().all()):
        raise UserError(
            "The model answered logits that are not finite, so no attack on it can be judged: "
            "find the layer that overflows, or bound its scores."
        )


def check_choice(name: str, setting: str, value: str, choices: Collection[str]) -> None:
    """Raises UserError unless ``value``, of a ``setting`` of the attack ``name``, is one of ``choices``."""
    if value not in choices:
        raise UserError(f"Attack {name} has {setting}='{value}': choose one of {', '.join(choices)}.")


def check_at_least(name: str, least: float, **settings: float | None) -> None:
    """Raises UserError for an attack's setting that is below ``least``, infinite or NaN; None is let through."""
    for setting, value in settings.items():
        if value is not None and not least <= value < float("inf"):
            raise UserError(f"Attack {name} has {setting}={value}: give at least {least}.")


def check_positive(name: str, **settings: float | None) -> None:
    """Raises UserError for an attack's setting that is not above 0, infinite or NaN; None is let through."""
    for setting, value in settings.items():
        if value is not None and not 0 < value < float("inf"):
            raise UserError(f"Attack {name} has {setting}={value}: give more than 0.")


def check_threat(name: str, threat: Threat, norms: Collection[Norm]) -> None:
    """Raises UserError for a ball in whose norm the attack ``name`` does not search."""
    if threat.norm not in norms:
        raise UserError(
            f"Attack {name} searches in {' and '.join(norms)}, and the threat is in {threat.norm}: set "
            f"threat={' or '.join(norms)}, or choose another attack."
        )
