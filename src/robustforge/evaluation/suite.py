"""Which attacks are run on which surfaces, and at which budgets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from robustforge.attacks.core.attack import Attack
from robustforge.hints import check_fields
from robustforge.ranges import Some
from robustforge.types import Norm, Threat


@dataclass(frozen=True)
class Suite:
    """Attacks that are run on the same surfaces.

    Attributes:
        attacks: the attacks; the keys are for overriding, records carry each attack's own name.
        surfaces: surface names of the defense, or None for all it has but the aimed ones, which only targeted attacks
            understand. Rows of other systems are attacked end to end.
        others: whether the other systems (undefended, selector) are attacked with it too.
        aimed: attack the aimed surfaces and nothing else, where the defense has any.
        budgets: radii of its own, or None for the protocol's.
        blind: its attacks ask the surface's own answer whether they are done, and never the deployed system, which
            judges the result all the same: attackers that know of no detector.
        norms: of the budgets that it is run at, or None for every norm: a smallest L2 perturbation, cut to an
            L-infinity ball, says nothing about that ball.

    Raises:
        UserError: a field of another type, such as an unknown norm.
    """

    attacks: Mapping[str, Attack]
    surfaces: Sequence[str] | None = None
    others: bool = True
    aimed: bool = False
    budgets: Some[Threat] | None = None
    blind: bool = False
    norms: Some[Norm] | None = None

    def __post_init__(self) -> None:
        check_fields(self)

    def radii(self, budgets: Sequence[Threat]) -> list[Threat]:
        """Of its own budgets, or those of the protocol, the ones in its norms."""
        return [threat for threat in (budgets if self.budgets is None else self.budgets) if self.takes(threat)]

    def takes(self, threat: Threat) -> bool:
        """Whether it is run at budgets of such a norm."""
        return self.norms is None or threat.norm in self.norms
