"""Any torchattacks attack on any surface, through the same budget check and float32 judging as our own."""

from __future__ import annotations

import importlib
import inspect
import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from robustforge.attacks.core.attack import Attack
from robustforge.attacks.core.geometry import project
from robustforge.attacks.core.session import attacking
from robustforge.attacks.core.surface import Surface
from robustforge.types import AttackResult, Threat, UserError

# What was seen in torchattacks 3.5.1; said whenever the attack is used, so that nobody reports such a number unaware.
DEFECTS = {
    "CW": "does nothing on pixels that are exactly 0 or 1, and has no binary search over c",
    "DeepFool": "loops over images and gives up early, so that it leaves many images standing",
    "JSMA": "loops over images and gives up early, so that it leaves many images standing",
    "AutoAttack": "disagrees with the reference implementation by fractions of a point",
}


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


class _LabeledModel(nn.Module):
    """Logits of a surface with the labels fixed, which is the shape torchattacks expects of a model."""

    def __init__(self, surface: Surface, y: Tensor) -> None:
        super().__init__()
        self.modules_under_attack = surface.modules
        self._surface, self._y = surface, y
        self.device_marker = nn.Parameter(torch.zeros(0, device=y.device), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        # restarts and per-class loops hand over other batch sizes: only surfaces that ignore y survive those
        y = self._y if len(x) == len(self._y) else self._y[: len(x)]
        return self._surface.logits(x, y)


@dataclass(frozen=True)
class TorchAttack(Attack):
    """``attack=torchattacks/<attack>``.

    Attributes:
        attack: class name in torchattacks.
        options: keyword arguments of that class; ``eps`` and ``norm`` come from the threat where the class has them.
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
        torchattacks = library()
        if self.attack not in attack_names():
            raise UserError(f"torchattacks has no attack '{self.attack}'; it has {', '.join(attack_names())}.")
        known = set(inspect.signature(getattr(torchattacks, self.attack)).parameters)
        unknown = sorted(set(self.options) - known)
        if unknown:
            raise UserError(
                f"torchattacks.{self.attack} has no option {', '.join(unknown)}; it has {', '.join(sorted(known))}."
            )
        object.__setattr__(self, "name", self.name or f"torchattacks/{self.attack}")

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

        Notes:
            torchattacks seeds from the global generator, so draws depend on the batch: its numbers are reproducible for
            one batch size only. Results are projected into the threat's ball, which for its unbounded attacks (CW,
            DeepFool) means "cut to the budget". Pass counts are not known and stay 0.
        """
        if self.attack in DEFECTS:
            warnings.warn(f"torchattacks.{self.attack} {DEFECTS[self.attack]}.", stacklevel=2)
        with (
            attacking(surface, x, y, threat, index=index, precision="float32", threshold=threshold) as session,
            _seeded(seed, x.device),
        ):
            best = session.x.clone()
            rows = (~session.fools(x)).nonzero().flatten() if self.early_stop else session.everyone()
            if len(rows) and session.threat.eps > 0:
                adversary = self._build(_LabeledModel(session.surface, y[rows]), session.threat)
                best[rows] = project(adversary(x[rows].clone(), y[rows]).detach().float(), x[rows], session.threat)
            return session.finish(best)

    def _build(self, model: nn.Module, threat: Threat) -> Any:
        """The torchattacks object, with the threat's radius and norm where the class takes them."""
        factory = getattr(library(), self.attack)
        accepts = inspect.signature(factory).parameters
        options = dict(self.options)
        if "eps" in accepts:
            options.setdefault("eps", threat.eps)
        if "norm" in accepts:
            options.setdefault("norm", {"linf": "Linf", "l2": "L2"}[threat.norm])
        return factory(model.eval(), **options)
