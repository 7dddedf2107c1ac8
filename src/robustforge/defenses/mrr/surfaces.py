"""What an attacker of modular robust redundancy may differentiate.

``victim``: gradient of the victim's logits; knows of no defender. The paper's black-box attacks (Table 1).
``end_to_end``: the same logits; its ``attacker_output`` adds the fused risk, and the detector scores of OR fusion, with
    a gradient that does not vanish. For attacks that evade the detector.
``white_box``: the victim's logits, the true class's raised by what the defenders hold against the best wrong class. Any
    plain attack must then satisfy label and defenders at once (Table 2). Its ``attacker_output`` scores the image as
    that class.

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
        With ``paper_literal`` the white-box surface penalizes sum_j max(0, distance_j - threshold_j) in units of
        distance, as the released code does, in place of standard deviations; its ``attacker_output`` then
        states that excess at the threshold 0.5 that OR fusion has.
    """

    def system(x: Tensor, _: Tensor) -> DefenseOutput:
        return defense(x)

    def logits(x: Tensor, _: Tensor) -> tuple[Tensor]:
        return (defense.undefended(x),)

    def without_defenders(x: Tensor, _: Tensor) -> DefenseOutput:
        return DefenseOutput(defense.undefended(x))

    def smooth(x: Tensor, _: Tensor) -> DefenseOutput:
        return defense.respond(x, smooth=True)

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
            return defense.respond(x, label=label, logits=victim, smooth=True)
        detector_scores = 0.5 * (1 + _excess(defense, x, label))
        return DefenseOutput(victim, detector_scores.amax(1), None, detector_scores)

    def aimed(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        victim = defense.undefended(x)
        return victim, victim.detach().scatter(1, y[:, None], float("-inf")).argmax(1)

    return {
        "end_to_end": Surface("end_to_end", logits, system, defense, attacker_output=smooth),
        "victim": Surface("victim", logits, system, defense, attacker_output=without_defenders),
        "white_box": Surface("white_box", white_box, system, defense, attacker_output=white_box_answer),
    }


def _excess(defense: ModularRobustRedundancy, x: Tensor, label: Tensor) -> Tensor:
    """(B, J) how far each defender's score for classes ``label`` (B,) lies above its SP threshold."""
    scores = defense.scores(x, label)
    if not defense.paper_literal:
        return defense.fusion.excess(scores, label)
    thresholds: Tensor = defense.fusion.cdf.thresholds(defense.fusion.settings.security_parameter)
    return scores - torch.as_tensor(thresholds[:, label].T)
