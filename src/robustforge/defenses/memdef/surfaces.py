"""What an attacker of Memory Defense may differentiate.

============== ===================================================== ==========================================
surface        gradient of                                           who uses it
============== ===================================================== ==========================================
``slot_given`` the stack, its slot frozen to the label handed in      the paper's released test code
``selector``   classifier-A alone                                     attack the part that decides
``end_to_end`` the stack with classifier-A's hard slot                plain autodiff; blind to the slot's choice
``soft_slot``  both, straight through the argmax, and A's own loss    the adapted attack
``slot_aimed`` the stack with the slot an attack aims at, and A       ``multi_targeted``: every slot in turn
``transfer``   the undefended classifier-A                            the oblivious attacker
============== ===================================================== ==========================================

All are judged by the deployed system, in which classifier-A sees the attacked image.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from robustforge.attacks.core.surface import Surface, transfer
from robustforge.nn.straight_through import straight_through_one_hot

if TYPE_CHECKING:
    from robustforge.defenses.memdef.module import MemoryDefense


def memdef_surfaces(defense: MemoryDefense, variant: str) -> dict[str, Surface]:
    """The surfaces of one defense, by name.

    Args:
        defense: whose networks.
        variant: its own, or another one's with the same networks.

    Notes:
        Variants without a slot (``selector``, ``no_memory``, ``classifier``) have ``end_to_end`` and ``transfer`` only.
        The released code evaluates with the slot recomputed on the attacked image, which is what ``system`` does here.
    """

    def soft_slot(x: Tensor, _: Tensor) -> tuple[Tensor, Tensor]:
        selected = defense.selector(x)
        slots = straight_through_one_hot(selected.float(), defense.surface_temperature)
        return defense.stack(x, slots).logits, selected

    def slot_aimed(x: Tensor, slots: Tensor) -> tuple[Tensor, Tensor]:
        return defense.stack(x, slots).logits, defense.selector(x)

    end_to_end = Surface("end_to_end", lambda x, y: (defense.respond(x, y).logits,), defense.respond, defense)
    surfaces = {"end_to_end": end_to_end, "transfer": transfer(defense.undefended, end_to_end)}
    if variant in ("selector", "no_memory", "classifier"):
        return surfaces
    surfaces["slot_given"] = Surface("slot_given", lambda x, y: (defense.stack(x, y).logits,), defense.respond, defense)
    if variant == "full":
        selector = defense.selector
        surfaces["selector"] = Surface("selector", lambda x, _: (selector(x),), defense.respond, defense)
        surfaces["soft_slot"] = Surface(
            "soft_slot", soft_slot, defense.respond, defense, weights=(1.0, defense.selector_weight)
        )
        surfaces["slot_aimed"] = Surface(
            "slot_aimed", slot_aimed, defense.respond, defense, weights=(1.0, defense.selector_weight), aimed=True
        )
    return surfaces
