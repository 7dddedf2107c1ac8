"""What an evaluation runs: suites of attacks on surfaces at budgets."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from torch import nn

from robustforge.attacks.core.attack import Attack
from robustforge.attacks.core.surface import Surface, eot
from robustforge.attacks.none import NoAttack
from robustforge.evaluation.checks import checks_of
from robustforge.evaluation.suite import Suite as Suite
from robustforge.hints import check_fields
from robustforge.ranges import PositiveFloat, PositiveInt, Seed, ShareBelowOne, Some
from robustforge.types import Threat, UserError

WORST = "worst_case"  # what tables call the minimum over all attacks
DRAWS = 16  # of the surface `eot` of a defense that names none


@dataclass(frozen=True)
class Cell:
    """One number of a table, before it is measured.

    Attributes:
        system: row.
        attack: column; None for clean images.
        surface: what is differentiated (and, always, what judges).
        threat: budget; None for clean images.
        rate: false-positive rate at which the system's threshold on risk is fitted; None accepts everything.
        check: what this cell checks (see :mod:`robustforge.evaluation.checks`); empty for a number of the table.
        blind: whether the attack is kept from the deployed system's answers.
    """

    system: str
    surface: Surface
    attack: Attack | None = None
    threat: Threat | None = None
    rate: float | None = None
    check: str = ""
    blind: bool = False

    @property
    def label(self) -> str:
        """In words, for progress bars."""
        if self.attack is None or self.threat is None:
            return f"{self.system}: clean"
        check = f", {self.check}" if self.check else ""
        return f"{self.system}: {self.attack.name} on {self.surface.name} {self.threat.eps:.3f}{check}"


def _transfer(source: Surface, target: Surface) -> Surface:
    """Differentiates ``source``'s views, judged by ``target``'s system."""
    return replace(
        source,
        name="transfer",
        system=target.system,
        attacker_output=None,
        modules=nn.ModuleList([source.modules, target.modules]),
    )


@dataclass(frozen=True)
class Protocol:
    """A named evaluation.

    Attributes:
        name: in results.
        suites: what is run.
        budgets: at which radii.
        n_test: test images, the first n of a permutation seeded with 0; None for all of them.
        n_clean: clean images, the first n of the same permutation, where false alarms are to be counted on more images
            than are attacked; None: those that are attacked.
        seed: of the attacks' draws.
        false_positive_rate: share of held-out clean images that may be rejected by risk; None accepts everything.
        main: the run's own attack, added to every suite (or replacing the one of its name); None for none.
        false_positive_rates: several such rates in one evaluation. Attacks adapt to the threshold, so that each rate
            has cells of its own; where ``false_positive_rate`` is given as well, it comes first.
        checks: whether the defense's iterated attacks are checked by cheap runs on few images.
        checks_n: images of a check, the first n of the evaluated ones.
        strict: whether a violated indicator makes a number unreliable, so that no robust accuracy is stated.
        transfer: whether a defense without a ``transfer`` surface gets one, from the row ``undefended`` where there is
            one.
        compile: run the attacked networks through ``torch.compile``: pays for itself on long attacks only.
        memory_gb: largest memory in GiB that an attack's batch may take; None: the data module's batch size.
        threshold: risk above which inputs are rejected, instead of a fitted one: 1 for defenses that scale their risk
            by thresholds of their own (gmvae); None to go by the false-positive rates.
        columns: ``full``, or ``worst``: no attack spends passes on images that are wrong as they are or that an attack
            before it has broken at the same budget. The worst case is the same; the column of an attack then says what
            is left after it and all before it. ``main``: likewise, after the run's own attack, which comes first and
            has its own column on every surface.
        pictures: whether images are attacked once more for the figures that show them (gallery, correlation, geometry).

    Raises:
        UserError: no test image, a rate outside [0, 1), both a rate and a threshold, or one attack name with two
            settings.
    """

    name: str
    suites: Mapping[str, Suite]
    budgets: Some[Threat]
    n_test: PositiveInt | None = None
    seed: Seed = 0
    false_positive_rate: ShareBelowOne | None = None
    main: Attack | None = field(default=None)
    false_positive_rates: Sequence[ShareBelowOne | None] | None = None
    checks: bool = False
    checks_n: PositiveInt = 100
    strict: bool = False
    transfer: bool = False
    compile: bool = False
    memory_gb: PositiveFloat | None = None
    threshold: float | None = None
    n_clean: PositiveInt | None = None
    pictures: bool = True
    columns: Literal["full", "main", "worst"] = "full"

    def __post_init__(self) -> None:
        check_fields(self)
        if self.threshold is not None and self.rates != (None,):
            raise UserError("The protocol has a threshold and a false_positive_rate: set one of them to null.")
        self._refuse_homonyms()

    @property
    def rates(self) -> tuple[float | None, ...]:
        """The false-positive rates of this evaluation, the headline's first; (None,) accepts everything."""
        several = list(self.false_positive_rates or ())
        first = [] if several and self.false_positive_rate is None else [self.false_positive_rate]
        return tuple(dict.fromkeys(first + several))

    def cells(
        self,
        name: str,
        own: Mapping[str, Surface],
        others: Mapping[str, Mapping[str, Surface]],
        random: Collection[str] = (),
    ) -> list[Cell]:
        """Every cell, clean ones first, checks last.

        Args:
            name: of the defense's row.
            own: the defense's surfaces.
            others: surfaces of the other systems, by row name.
            random: rows whose systems answer at random. Such a defense gets the surface ``eot`` where it names none, as
                does one of which a suite asks for it, unless it has draws of its own (``fixed_noise``).

        Raises:
            UserError: a suite names a surface that the defense lacks.
        """
        cells: list[Cell] = []
        if self.transfer and "transfer" not in own and "undefended" in others:
            own = {**own, "transfer": _transfer(others["undefended"]["end_to_end"], own["end_to_end"])}
        asked = any("eot" in (suite.surfaces or ()) for suite in self.suites.values())
        if "eot" not in own and (name in random or (asked and "fixed_noise" not in own)):
            own = {**own, "eot": eot(own["end_to_end"], DRAWS)}
        rows = {**others, name: own}
        for rate in self.rates:
            cells += [Cell(row, surfaces["end_to_end"], rate=rate) for row, surfaces in rows.items()]
        for label, suite in self.suites.items():
            wanted = self._surfaces(label, suite, name, own)
            for threat in suite.radii(self.budgets):
                for attack in self._attacks(suite):
                    for rate in self.rates:
                        if suite.others:
                            cells += [Cell(row, s["end_to_end"], attack, threat, rate) for row, s in others.items()]
                        cells += [
                            Cell(name, own[surface], attack, threat, rate, blind=suite.blind) for surface in wanted
                        ]
        cells.sort(key=self._turn)
        if self.checks:
            cells += [check for cell in cells if cell.system == name for check in self._checks(cell)]
        # the main attack joins every suite, and suites may overlap: one record a sample, attack and surface
        return [cell for number, cell in enumerate(cells) if cell not in cells[:number]]

    def _surfaces(self, label: str, suite: Suite, name: str, own: Mapping[str, Surface]) -> list[str]:
        if suite.aimed:
            return [key for key, surface in own.items() if surface.aimed]
        unaimed = [key for key, surface in own.items() if not surface.aimed]
        wanted = unaimed if suite.surfaces is None else list(suite.surfaces)
        missing = [surface for surface in wanted if surface not in own]
        if missing:
            raise UserError(
                f"Protocol '{self.name}', suite '{label}', attacks the surface {', '.join(missing)}, which {name} "
                f"lacks: it has {', '.join(own)}."
            )
        return wanted

    def _attacks(self, suite: Suite) -> list[Attack]:
        attacks = {attack.name: attack for attack in suite.attacks.values()}
        if self.main is not None and not isinstance(self.main, NoAttack):  # clean cells are there already
            attacks[self.main.name] = self.main
        return list(attacks.values())

    def _turn(self, cell: Cell) -> int:
        """What comes first where images are spared: clean answers, then the attack that has its own column."""
        return 0 if cell.attack is None or self.columns != "main" else 1 if cell.attack == self.main else 2

    @staticmethod
    def _checks(cell: Cell) -> list[Cell]:
        if cell.attack is None or cell.threat is None or cell.surface.name == "transfer":
            return []
        variants = checks_of(cell.attack, cell.threat)
        return [replace(cell, attack=attack, threat=threat, check=check) for check, attack, threat in variants]

    def _refuse_homonyms(self) -> None:
        """Records carry an attack's name alone: what has one name must be one thing."""
        main = None if self.main is None else self.main.name  # replaces its namesakes
        if main == WORST:
            raise UserError(f"'{WORST}' is a row of every table: set attack.name to another name.")
        seen: dict[str, tuple[str, Attack]] = {}
        for label, suite in self.suites.items():
            for key, attack in suite.attacks.items():
                if attack.name == WORST:
                    raise UserError(
                        f"'{WORST}' is a row of every table: set {label}.attacks.{key}.name to another name."
                    )
                place, first = seen.setdefault(attack.name, (f"{label}.{key}", attack))
                if attack != first and attack.name != main:
                    raise UserError(
                        f"Protocol '{self.name}' gives the attack name '{attack.name}' different settings in {place} "
                        f"and {label}.{key}: set {label}.attacks.{key}.name to another name."
                    )
