"""What the engine refuses: images, logits and settings that would make an attack report nonsense."""

from __future__ import annotations

from collections.abc import Collection

from torch import Tensor

from robustforge.types import Norm, Threat, UserError


def check_logits(logits: Tensor) -> None:
    """Raises UserError for logits that are not finite."""
    if not bool(logits.isfinite().all()):
        raise UserError(
            "The model answered logits that are not finite, so no attack on it can be judged: "
            "find the layer that overflows, or bound its scores."
        )


def check_threat(name: str, threat: Threat, norms: Collection[Norm]) -> None:
    """Raises UserError for a ball in whose norm the attack ``name`` does not search."""
    if threat.norm not in norms:
        raise UserError(
            f"Attack {name} searches in {' and '.join(norms)}, and the threat is in {threat.norm}: set "
            f"threat={' or '.join(norms)}, or choose another attack."
        )
