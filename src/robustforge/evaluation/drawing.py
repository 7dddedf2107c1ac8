"""Systems that draw random numbers of their own: found out by asking them the same twice."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import torch
from torch import Tensor

from robustforge.attacks.core.surface import Surface, fooled, frozen
from robustforge.randomness import global_draws
from robustforge.training import distributed
from robustforge.types import Batch, DefenseOutput

log = logging.getLogger(__name__)

IMAGES = 8  # that are asked about
BATCH = (
    16  # images a batch of a system that answers at random, whatever the data module says: its draws go by the batch
)
_PASSES = 3
_TOLERANCE = 1e-4  # of the largest value: sums on GPUs differ from call to call by less


def random_systems(rows: Mapping[str, Mapping[str, Surface]], few: Batch) -> list[str]:
    """The rows whose systems answer at random, the same on every process; each is said.

    Args:
        rows: surfaces by row.
        few: images that are asked about.
    """
    found = []
    for row, surfaces in rows.items():
        if distributed.agree(answers_at_random(surfaces["end_to_end"], few.x, few.y)):
            found.append(row)
            if distributed.rank() == 0:
                log.warning(
                    "%s answers at random: the same image gets other answers from one pass to the next. Attack it on "
                    "the surface eot, as protocol=adaptive does, or switch off what draws (dropout left on, noise).",
                    row,
                )
    return found


@torch.no_grad()
def answers_at_random(surface: Surface, x: Tensor, y: Tensor) -> bool:
    """Whether the deployed system answers the same images differently, in eval mode.

    Args:
        surface: whose system is asked.
        x: (B, C, H, W) a few images.
        y: (B,) labels.

    Notes:
        Draws that are a function of the image, as those of :class:`robustforge.defenses.purifier.Purifier`, are no
        random answers. The caller's random state is kept.
    """
    with frozen(surface.modules), global_draws(0, torch.arange(len(x), device=x.device)):
        first, *others = [fooled(surface, x, y)[1] for _ in range(_PASSES)]
    return any(_differ(first, other) for other in others)


def _differ(one: DefenseOutput, other: DefenseOutput) -> bool:
    pairs = [(one.logits, other.logits)]
    if one.risk is not None and other.risk is not None:
        pairs.append((one.risk, other.risk))
    return any(bool(((a - b).abs() > _TOLERANCE * a.abs().max()).any()) for a, b in pairs)
