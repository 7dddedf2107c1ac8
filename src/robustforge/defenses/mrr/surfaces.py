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

from dataclasses import replace

import torch.nn.functional as F
from torch import Tensor, nn

from robustforge.attacks.core.surface import Surface
from robustforge.defenses.mrr.system import Redundancy
from robustforge.types import DefenseOutput


def mrr_surfaces(
    modules: nn.Module, system: Redundancy, penalty_weight: float, paper_literal: bool
) -> dict[str, Surface]:
    """The surfaces of one defense, by name.

    Args:
        modules: all networks, frozen under attack.
        system: as deployed.
        penalty_weight: of the defenders in the logits of ``white_box``.
        paper_literal: ``white_box`` penalizes sum_j max(0, distance_j - threshold_j) in units of distance, as the
            released code does, in place of standard deviations; its ``attacker_output`` then states that excess at the
            threshold 0.5 that OR fusion has.

    Notes:
        The victim is not changed by the defense: a transfer attack from the undefended classifier *is* ``victim``.
    """

    def deployed(x: Tensor, _: Tensor) -> DefenseOutput:
        return system.respond(x)

    def logits(x: Tensor, _: Tensor) -> tuple[Tensor]:
        return (system.victim(x),)

    def white_box(x: Tensor, y: Tensor) -> tuple[Tensor]:
        victim, label = aimed(x, y)
        if not system.count:
            return (victim,)
        excess = system.excess(x, label, paper_literal)
        held = penalty_weight * excess.clamp(min=0).sum(1, keepdim=True)
        return (victim + held * F.one_hot(y, victim.shape[1]),)

    def white_box_answer(x: Tensor, y: Tensor) -> DefenseOutput:
        victim, label = aimed(x, y)
        if not paper_literal or not system.count:
            return system.respond(x, label=label, logits=victim, smooth=True)
        detector_scores = 0.5 * (1 + system.excess(x, label, paper_literal))
        return DefenseOutput(victim, detector_scores.amax(1), None, detector_scores)

    def aimed(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        victim = system.victim(x)
        return victim, victim.detach().scatter(1, y[:, None], float("-inf")).argmax(1)

    alone = Surface("victim", logits, deployed, modules, attacker_output=lambda x, _: DefenseOutput(system.victim(x)))
    return {
        "end_to_end": replace(alone, name="end_to_end", attacker_output=lambda x, _: system.respond(x, smooth=True)),
        "victim": alone,
        "white_box": Surface("white_box", white_box, deployed, modules, attacker_output=white_box_answer),
    }
