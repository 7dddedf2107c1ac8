"""Any torchattacks attack on any surface, through the same budget check and float32 judging as our own."""

from __future__ import annotations

import importlib
import inspect
import logging
import math
import random
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from robustforge.attacks.core.attack import Attack
from robustforge.attacks.core.checks import check_logits
from robustforge.attacks.core.geometry import project
from robustforge.attacks.core.session import AttackSession, attacking
from robustforge.attacks.core.surface import Surface
from robustforge.attacks.torchattacks_facts import DEFECTS, check_limits, check_norm, fitted_options, short_of
from robustforge.losses.classification import margin
from robustforge.types import AttackResult, Threat, UserError

log = logging.getLogger(__name__)
# what its own code raises on input that it was not written for
_ERRORS = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


def library() -> ModuleType:
    """The package torchattacks, which is an extra and imported only where it is used.

    Raises:
        UserError: it is not installed.
    """
    try:
        return importlib.import_module("torchattacks")
    except ModuleNotFoundError as error:
        raise UserError("torchattacks is not installed: run pip install 'robustforge[torchattacks]'.") from error


def attack_names() -> list[str]:
    """Names of the attack classes that the installed torchattacks offers for a model."""
    torchattacks = library()
    return sorted(
        name
        for name, value in vars(torchattacks).items()
        if inspect.isclass(value)
        and issubclass(value, torchattacks.attack.Attack)
        and name != "Attack"
        and list(inspect.signature(value).parameters)[:1] == ["model"]
    )


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seeds every global generator that torchattacks draws from, and puts all of them back."""
    numpy_state, python_state = np.random.get_state(), random.getstate()
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            np.random.seed(seed % 2**32)
            random.seed(seed)
            yield
    finally:
        np.random.set_state(numpy_state)
        random.setstate(python_state)


class _AttackedModel(nn.Module):
    """Logits of a surface with the labels fixed, as torchattacks expects of a model; counts the passes.

    Args:
        session: the attack under way.
        rows: (n,) images of the batch that are attacked.
    """

    def __init__(self, session: AttackSession, rows: Tensor) -> None:
        super().__init__()
        self._session, self._rows, self._y = session, rows, session.y[rows]
        self._rest = {"forwards": 0, "backwards": 0}  # images in passes on only some of the rows, or on copies of them
        self.device_marker = nn.Parameter(torch.zeros(0, device=rows.device), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of images ``x`` (B, C, H, W); counts the passes that the library makes."""
        # restarts and per-class loops hand over other batch sizes: only surfaces that ignore y survive those
        y = self._y if len(x) == len(self._y) else self._y[: len(x)]
        self._count("forwards", len(x))
        copy = x.clone()  # a network may write into its input, and x may be the input of several passes
        seen: list[Tensor] = []  # the margins of this pass
        if copy.requires_grad:  # not so where gradients are off
            copy.register_hook(partial(self._differentiated, seen))  # type: ignore[no-untyped-call]
        logits = self._session.surface.logits(copy, y)
        check_logits(logits)
        if copy.requires_grad and not logits.requires_grad:  # a surface that does not look at the image: an honest zero
            logits = logits + 0 * x.flatten(1).sum(1, keepdim=True)
        if len(x) == len(self._rows):
            seen.append(margin(logits.detach().float(), y))
        return logits

    def _differentiated(self, seen: list[Tensor], gradient: Tensor) -> None:
        """Counts a backward pass; one of all images enters the trace with the margin (n,) that they had."""
        self._count("backwards", len(gradient))
        for value in seen:
            self._session.record(self._rows, gradient.detach(), value)

    def _count(self, kind: str, images: int) -> None:
        if images == len(self._rows):
            getattr(self._session, kind)[self._rows] += 1
        else:
            self._rest[kind] += images

    def share_out(self) -> None:
        """Passes on some of the images count for all of them alike, rounded up: which ones they were is not known."""
        for kind, images in self._rest.items():
            getattr(self._session, kind)[self._rows] += math.ceil(images / len(self._rows))


@dataclass(frozen=True)
class TorchAttack(Attack):
    """``attack=torchattacks/<attack>``.

    Attributes:
        attack: class name in torchattacks.
        options: keyword arguments of that class. Radius, norm and number of classes come from threat and data where it
            takes them; so does the step size, whose default is made for a radius of 8/255:
            see :func:`robustforge.attacks.torchattacks_facts.fitted_options`.
        name: row name in records.
        early_stop: leave images alone that are misclassified already.

    Raises:
        UserError: torchattacks has no such class, or the class does not take an option.
    """

    attack: str
    options: dict[str, Any] = field(default_factory=dict)
    name: str = ""
    early_stop: bool = True

    def __post_init__(self) -> None:
        if self.attack not in attack_names():
            raise UserError(f"torchattacks has no attack '{self.attack}'; it has {', '.join(attack_names())}.")
        known = set(self._accepts)
        unknown = sorted(set(self.options) - known)
        if unknown:
            raise UserError(
                f"torchattacks.{self.attack} has no option {', '.join(unknown)}; it has {', '.join(sorted(known))}."
            )
        object.__setattr__(self, "name", self.name or f"torchattacks/{self.attack}")

    @property
    def _accepts(self) -> Mapping[str, inspect.Parameter]:
        return inspect.signature(getattr(library(), self.attack)).parameters

    def fits(self, shape: Sequence[int], num_classes: int, threat: Threat) -> None:
        """See :class:`robustforge.attacks.core.attack.Attack`."""
        required = [name for name, one in list(self._accepts.items())[1:] if one.default is one.empty]
        missing = [name for name in required if name not in (*self.options, "kwargs")]
        if missing:
            raise UserError(
                f"torchattacks.{self.attack} needs the option {', '.join(missing)}, which only Python can give: choose "
                "another attack."
            )
        check_norm(self.attack, self.options, self._accepts, threat)
        check_limits(self.attack, self.options, shape, num_classes, threat)

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
        """See :class:`robustforge.attacks.core.attack.Attack`.

        Raises:
            UserError: the class does not fit the images, the number of classes or the norm, or fails on them.

        Notes:
            torchattacks seeds from the global generator, so draws depend on the batch: its numbers are reproducible for
            one batch size only. Results are projected into the threat's ball, which for its minimum-norm attacks (CW,
            DeepFool) means "cut to the budget". Passes that it makes on some of the images only are shared out evenly.
            The trace has the margin in place of the attack's own objective, which is not known.
        """
        with (
            attacking(surface, x, y, threat, index=index, precision="float32", threshold=threshold) as session,
            _seeded(seed, x.device),
        ):
            best = session.x.clone()
            rows = (~session.fools(x)).nonzero().flatten() if self.early_stop else session.everyone()
            if len(x):
                self.fits(x.shape[1:], session.classes(), session.threat)
            if len(rows) and session.threat.eps > 0:
                best[rows] = project(self._perturbed(session, rows), session.x[rows], session.threat)
            return session.finish(best)

    def _perturbed(self, session: AttackSession, rows: Tensor) -> Tensor:
        """What torchattacks makes of the images at ``rows`` (n,), wherever that lies."""
        if self.attack in DEFECTS:
            warnings.warn(f"torchattacks.{self.attack} {DEFECTS[self.attack]}.", stacklevel=4)
        x, y, classes = session.x[rows], session.y[rows], session.classes()
        options = fitted_options(getattr(library(), self.attack), self.options, x.shape[1:], classes, session.threat)
        if short := short_of(options, self._accepts):
            log.warning("%s: %s.", self.name, short)
        model = _AttackedModel(session, rows).eval()
        try:
            adversary = getattr(library(), self.attack)(model, **options)
            if self.attack == "JSMA":  # it counts on ten classes
                adversary.set_mode_targeted_by_function(lambda _, labels: (labels + 1) % classes, quiet=True)
            perturbed: Tensor = adversary(x.clone(), y).detach().float()
        except torch.OutOfMemoryError:
            raise
        except _ERRORS as error:
            raise UserError(
                f"torchattacks.{self.attack} with {options} failed on images {tuple(x.shape[1:])} of {classes} classes "
                f"({type(error).__name__}: {error}): change its options or choose another attack."
            ) from error
        model.share_out()
        return perturbed
