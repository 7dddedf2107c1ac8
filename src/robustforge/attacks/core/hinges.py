"""How far the goal is missed, as minimum-norm attacks penalize it; objectives that sessions maximize."""

from __future__ import annotations

import torch.nn.functional as F

from robustforge.attacks.core.session import AttackSession
from robustforge.attacks.core.surface import Objective
from robustforge.losses.classification import margin


def hinged(session: AttackSession) -> Objective:
    """The margin where it is missed, at most 0 and flat once the goal is reached; (logits, labels) -> (n,)."""
    if session.targets is None:
        return lambda logits, labels: margin(logits, labels).clamp(max=0)
    return lambda logits, labels: margin(logits, labels).clamp(min=0)  # of targets the session maximizes the negative


def softened(session: AttackSession) -> Objective:
    """Minus the softplus of what the margin misses: smooth, and never quite flat."""
    if session.targets is None:
        return lambda logits, labels: -F.softplus(-margin(logits, labels))
    return lambda logits, labels: F.softplus(margin(logits, labels))
