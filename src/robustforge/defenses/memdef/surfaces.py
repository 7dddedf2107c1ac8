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

from torch import Tensor, nn

from robustforge.attacks.core.surface import Surface, transfer
from robustforge.defenses.memdef.system import WITHOUT_SLOT, MemorySystem
from robustforge.nn.straight_through import straight_through_one_hot


def memdef_surfaces(
    modules: nn.Module,
    system: MemorySystem,
    undefended: nn.Module,
    temperature: float,
    selector_weight: float,
    variant: str,
) -> dict[str, Surface]:
    """The surfaces of one defense, by name.

    Notes:
        Variants without a slot (``selector``, ``no_memory``, ``classifier``) have ``end_to_end`` and ``transfer`` only.
        The released code evaluates with the slot recomputed on the attacked image, which is what ``system`` does here.
    """
    selector, stack, respond = system.selector, system.stack, system.respond

    def soft_slot(x: Tensor, _: Tensor) -> tuple[Tensor, Tensor]:
        selected = selector(x)
        return stack(x, straight_through_one_hot(selected.float(), temperature)).logits, selected

    def slot_aimed(x: Tensor, slots: Tensor) -> tuple[Tensor, Tensor]:
        return stack(x, slots).logits, selector(x)

    end_to_end = Surface("end_to_end", lambda x, y: (respond(x, y).logits,), respond, modules)
    surfaces = {"end_to_end": end_to_end, "transfer": transfer(undefended, end_to_end)}
    if variant in WITHOUT_SLOT:
        return surfaces
    surfaces["slot_given"] = Surface("slot_given", lambda x, y: (stack(x, y).logits,), respond, modules)
    if variant == "full":
        weights = (1.0, selector_weight)
        surfaces["selector"] = Surface("selector", lambda x, _: (selector(x),), respond, modules)
        surfaces["soft_slot"] = Surface("soft_slot", soft_slot, respond, modules, weights)
        surfaces["slot_aimed"] = Surface("slot_aimed", slot_aimed, respond, modules, weights, aimed=True)
    return surfaces
