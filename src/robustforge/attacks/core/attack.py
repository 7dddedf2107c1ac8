"""What configs instantiate: an attack is a frozen dataclass of settings, called with (surface, x, y, threat)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

from torch import Tensor

from robustforge.attacks.core.checks import check_threat
from robustforge.attacks.core.geometry import project, random_start
from robustforge.attacks.core.session import AttackSession, attacking
from robustforge.attacks.core.surface import Surface
from robustforge.attacks.core.targets import Target, check_target
from robustforge.hints import check_fields
from robustforge.randomness import SampleRandom
from robustforge.ranges import Precision
from robustforge.types import AttackResult, Norm, Threat


class Attack(Protocol):
    """A pure callable: same arguments, same answer."""

    name: str

    @property
    def evades(self) -> bool:
        """Whether it lowers the risk of a system that may reject, too."""
        return False

    def fits(self, shape: Sequence[int], num_classes: int, threat: Threat) -> None:
        """Looks, before anything is trained, whether it can work on such data.

        Args:
            shape: (C, H, W) of the images.
            num_classes: of the data.
            threat: ball its results must stay in.

        Raises:
            UserError: it cannot; one sentence says what to do.
        """

    def __call__(
        self,
        surface: Surface,
        x: Tensor,
        y: Tensor,
        threat: Threat,
        *,
        index: Tensor | None = None,
        seed: int = 0,
        threshold: float | None = None,
    ) -> AttackResult:
        """Attacks a batch.

        Args:
            surface: what is differentiated and what judges.
            x: clean images in [0, 1], (B, C, H, W).
            y: true labels, (B,).
            threat: ball the result must stay in.
            index: (B,) sample numbers, which address the random draws.
            seed: of the random draws.
            threshold: risk above which the attacked system rejects, or None.

        Returns:
            Images, success, and passes spent.
        """
        ...

    def examples(
        self, surface: Surface, x: Tensor, y: Tensor, threat: Threat, *, index: Tensor | None = None, seed: int = 0
    ) -> Tensor:
        """The adversarial images (B, C, H, W) alone, for training; arguments as in :meth:`__call__`."""
        return self(surface, x, y, threat, index=index, seed=seed).x_adv


@dataclass(frozen=True)
class BaseAttack(Attack):
    """Base of our own attacks: a subclass says how a batch is perturbed, and the engine does the rest.

    Attributes:
        name: row name in records, and part of the address of random draws.
        precision: of the attacker's passes: ``auto``, ``float32`` or ``bf16``.
        target: None for an untargeted attack; ``next``, ``random``, ``least_likely``, ``runner_up`` or a class number.
            A targeted attack stops at its target; what it reports as success is a wrong label all the same.
        evades: whether it lowers a detector's risk too; of the class, not a setting.
        needs_risk: whether it is plain gradient ascent where nothing can be rejected; likewise.
        of_system: whether it asks the whole system alone, to which all surfaces of one system are the same; likewise.
        norms: of the balls that it can search; of the class, not a setting.

    Raises:
        UserError: a setting of another type or out of range, under which it would do nothing: see the type hints.
    """

    name: str
    precision: Precision = "auto"
    target: Target | None = None
    evades: ClassVar[bool] = False
    needs_risk: ClassVar[bool] = False
    of_system: ClassVar[bool] = False
    norms: ClassVar[tuple[Norm, ...]] = ("linf", "l2")

    def __post_init__(self) -> None:
        check_fields(self)

    def fits(self, shape: Sequence[int], num_classes: int, threat: Threat) -> None:
        """See :class:`Attack`; refuses a target that is none of the classes, and balls of other norms."""
        check_threat(self.name, threat, self.norms)
        check_target(self.name, self.target, num_classes)

    def __call__(
        self,
        surface: Surface,
        x: Tensor,
        y: Tensor,
        threat: Threat,
        *,
        index: Tensor | None = None,
        seed: int = 0,
        threshold: float | None = None,
    ) -> AttackResult:
        """See :class:`Attack`."""
        with attacking(
            surface,
            x,
            y,
            threat,
            index=index,
            precision=self.precision,
            threshold=threshold,
            target=self.target,
            seed=seed,
        ) as session:
            check_threat(self.name, session.threat, self.norms)
            return session.finish(self._perturbed(session, seed))

    def examples(
        self, surface: Surface, x: Tensor, y: Tensor, threat: Threat, *, index: Tensor | None = None, seed: int = 0
    ) -> Tensor:
        """See :class:`Attack`; without the float32 pass that judges them."""
        with attacking(
            surface, x, y, threat, index=index, precision=self.precision, target=self.target, seed=seed
        ) as session:
            check_threat(self.name, session.threat, self.norms)
            return self._perturbed(session, seed).detach().float().contiguous()

    def _perturbed(self, session: AttackSession, seed: int) -> Tensor:
        attackable = session.threat.eps > 0 and len(session.x) > 0
        return self.perturb(session, seed) if attackable else session.x.clone()

    @abstractmethod
    def perturb(self, session: AttackSession, seed: int) -> Tensor:
        """Adversarial images (B, C, H, W) for ``session``'s, inside its budget; networks are frozen meanwhile.

        Called only where there is an image and a budget above 0.
        """

    def random_start(self, session: AttackSession, seed: int, rows: Tensor, number: int) -> Tensor:
        """Uniform points (n, C, H, W) of the balls around the images ``rows`` (n,), those of start ``number``."""
        x, random = session.x[rows], SampleRandom(seed, self.name, number)
        return project(random_start(x, session.index[rows], session.threat, random), x, session.threat)
