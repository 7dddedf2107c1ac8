"""Learning-rate schedules as pure functions of training progress, so that they fit any number of epochs."""

from __future__ import annotations

import math
from collections.abc import Sequence

from robustforge.ranges import PositiveShare, Share, ShareBelowOne


def constant(progress: float, warmup: ShareBelowOne = 0.0) -> float:
    """1 after a linear warm-up over the first ``warmup`` share of training; ``progress`` is in [0, 1]."""
    return min(1.0, progress / warmup) if warmup else 1.0


def cosine(progress: float, warmup: ShareBelowOne = 0.0) -> float:
    """Linear warm-up, then half a cosine down to 0."""
    if progress < warmup:
        return progress / warmup
    return 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))


def step(
    progress: float, milestones: Sequence[Share] = (0.5, 0.75), factor: PositiveShare = 0.1, warmup: ShareBelowOne = 0.0
) -> float:
    """Multiplied by ``factor`` at each milestone (shares of training)."""
    return constant(progress, warmup) * factor ** sum(progress >= milestone for milestone in milestones)
