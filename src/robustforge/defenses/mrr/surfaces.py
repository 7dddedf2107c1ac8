"""What an attacker of modular robust redundancy may differentiate.

============== ===================================================== ==============================================
surface        gradient of                                           who uses it
============== ===================================================== ==============================================
``victim``     the victim's logits; knows of no defender             the paper's black-box set (Table 1)
``end_to_end`` the same logits; ``answer`` adds the fused risk, and  attacks that evade the detector
               its parts for OR fusion, with a gradient that does
               not vanish
``white_box``  the victim's logits, the true class's raised by what  any plain attack, which must then satisfy label
               the defenders hold against the best wrong class;      and defenders at once (Table 2); ``answer``:
               ``answer`` scores the image as that class              attacks that evade the detector
============== ===================================================== ==============================================

All are judged by the whole system: the victim's label and the fused risk. Input defenders take part in all of them:
their codes are constants on the way back, which is exact (see :mod:`robustforge.defenses.mrr.sparse_coding`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from robustforge.attacks.core.surface import Surface
from robustforge.types import DefenseOutput

if TYPE_CHECKING:
    from robustforge.defenses.mrr.module import ModularRobustRedundancy


def mrr_surfaces(defense: ModularRobustRedundancy) -> dict[str, Surface]:
    """The surfaces of one defense, by name.

    Notes:
        The victim is not changed by the defense: a transfer attack from the undefended classifier *is* ``victim``.
        With ``paper_literal`` the white-box surface penalises sum_j max(0, distance_j - threshold_j) in units of
        distance, as the released code does, in place of standard deviations; its ``answer`` then states that excess at
        the threshold 0.5 that OR fusion has.
    """

    def system(x: Tensor, _: Tensor) -> DefenseOutput:
        return defense(x)

    def logits(x: Tensor, _: Tensor) -> tuple[Tensor]:
        return (defense.undefended(x),)

    def without_defenders(x: Tensor, _: Tensor) -> DefenseOutput:
        return DefenseOutput(defense.undefended(x))

    def smooth(x: Tensor, _: Tensor) -> DefenseOutput:
        return defense.answer(x, smooth=True)

    def white_box(x: Tensor, y: Tensor) -> tuple[Tensor]:
        victim, label = aimed(x, y)
        if not defense.scores_count:
            return (victim,)
        excess = _excess(defense, x, label)
        held = defense.penalty_weight * excess.clamp(min=0).sum(1, keepdim=True)
        return (victim + held * F.one_hot(y, victim.shape[1]),)

    def white_box_answer(x: Tensor, y: Tensor) -> DefenseOutput:
        victim, label = aimed(x, y)
        if not defense.paper_literal or not defense.scores_count:
            return defense.answer(x, label=label, logits=victim, smooth=True)
        parts = 0.5 * (1 + _excess(defense, x, label))
        return DefenseOutput(victim, parts.amax(1), None, parts)

    def aimed(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        victim = defense.undefended(x)
        return victim, victim.detach().scatter(1, y[:, None], float("-inf")).argmax(1)

    return {
        "end_to_end": Surface("end_to_end", logits, system, defense, answer=smooth),
        "victim": Surface("victim", logits, system, defense, answer=without_defenders),
        "white_box": Surface("white_box", white_box, system, defense, answer=white_box_answer),
    }


def _excess(defense: ModularRobustRedundancy, x: Tensor, label: Tensor) -> Tensor:
    """(B, J) how far each defender's score for classes ``label`` (B,) lies above its SP threshold."""
    scores = defense.scores(x, label)
    if not defense.paper_literal:
        return defense.fusion.excess(scores, label)
    thresholds: Tensor = defense.fusion.cdf.thresholds(defense.fusion.plan.security_parameter)
    return scores - torch.as_tensor(thresholds[:, label].T)
