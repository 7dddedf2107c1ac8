"""What an evaluation runs: suites of attacks on surfaces at budgets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from robustforge.attacks.base import Attack
from robustforge.attacks.none import NoAttack
from robustforge.attacks.surfaces import Surface
from robustforge.types import Threat, UserError


@dataclass(frozen=True)
class Suite:
    """Attacks that are run on the same surfaces.

    Attributes:
        attacks: the attacks; the keys are for overriding, records carry each attack's own name.
        surfaces: surface names of the defense, or None for all it has but the aimed ones, which only targeted attacks
            understand. Rows of other systems are attacked end to end.
        others: whether the other systems (undefended, selector) are attacked with it too.
    """

    attacks: Mapping[str, Attack]
    surfaces: Sequence[str] | None = None
    others: bool = True


@dataclass(frozen=True)
class Cell:
    """One number of a table, before it is measured.

    Attributes:
        system: row.
        attack: column; None for clean images.
        surface: what is differentiated (and, always, what judges).
        threat: budget; None for clean images.
    """

    system: str
    surface: Surface
    attack: Attack | None = None
    threat: Threat | None = None


@dataclass(frozen=True)
class Protocol:
    """A named evaluation.

    Attributes:
        name: in results.
        suites: what is run.
        budgets: at which radii.
        n_test: test images, the first n of a permutation seeded with 0; None for all of them.
        seed: of the attacks' draws.
        false_positive_rate: share of held-out clean images that may be rejected by risk; None accepts everything.
        main: the run's own attack, added to every suite (or replacing the one of its name); None for none.
        threshold: risk above which inputs are rejected, instead of a fitted one: 1 for defenses that scale their risk
            by thresholds of their own (gmvae); None to go by ``false_positive_rate``.

    Raises:
        UserError: no test image, a rate outside [0, 1), or both a rate and a threshold.
    """

    name: str
    suites: Mapping[str, Suite]
    budgets: Sequence[Threat]
    n_test: int | None = None
    seed: int = 0
    false_positive_rate: float | None = None
    main: Attack | None = field(default=None)
    threshold: float | None = None

    def __post_init__(self) -> None:
        if self.n_test is not None and self.n_test < 1:
            raise UserError(f"protocol.n_test is {self.n_test}: give at least 1, or null for the whole test split.")
        rate = self.false_positive_rate
        if rate is not None and not 0 <= rate < 1:
            raise UserError(f"protocol.false_positive_rate is {rate}: give a share in [0, 1), or null.")
        if rate is not None and self.threshold is not None:
            raise UserError("The protocol has a threshold and a false_positive_rate: set one of them to null.")

    def cells(self, name: str, own: Mapping[str, Surface], others: Mapping[str, Mapping[str, Surface]]) -> list[Cell]:
        """Every cell, clean ones first.

        Args:
            name: of the defense's row.
            own: the defense's surfaces.
            others: surfaces of the other systems, by row name.

        Raises:
            UserError: a suite names a surface that the defense lacks.
        """
        cells = [Cell(row, surfaces["end_to_end"]) for row, surfaces in {**others, name: own}.items()]
        for label, suite in self.suites.items():
            unaimed = [key for key, surface in own.items() if not surface.aimed]
            wanted = unaimed if suite.surfaces is None else list(suite.surfaces)
            missing = [surface for surface in wanted if surface not in own]
            if missing:
                raise UserError(
                    f"Protocol '{self.name}', suite '{label}', attacks the surface {', '.join(missing)}, which {name} "
                    f"lacks: it has {', '.join(own)}."
                )
            attacks = {attack.name: attack for attack in suite.attacks.values()}
            if self.main is not None and not isinstance(self.main, NoAttack):  # clean cells are there already
                attacks[self.main.name] = self.main
            for threat in self.budgets:
                for attack in attacks.values():
                    if suite.others:
                        cells += [Cell(row, s["end_to_end"], attack, threat) for row, s in others.items()]
                    cells += [Cell(name, own[surface], attack, threat) for surface in wanted]
        # the main attack joins every suite, and suites may overlap: one record a sample, attack and surface
        return [cell for number, cell in enumerate(cells) if cell not in cells[:number]]
