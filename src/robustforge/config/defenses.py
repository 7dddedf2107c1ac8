"""The defense of a configuration, and the trained system that it is compared with."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from robustforge.config.instantiate import build, without
from robustforge.config.tables import GIVEN
from robustforge.defenses.base import Defense
from robustforge.defenses.undefended import take_undefended
from robustforge.training.store import Artifact
from robustforge.types import UserError


def build_defense(node: DictConfig) -> Defense:
    """The defense, with the undefended classifier that it is given, in eval mode.

    Args:
        node: ``cfg.defense``.

    Raises:
        UserError: values that the defense refuses, or weights that are not its undefended classifier's.
    """
    defense: Defense = build(without(node, GIVEN))
    weights = node.get("undefended_from")
    if weights is not None:
        take_undefended(defense, str(weights))
    return defense.eval()


def build_baseline(node: DictConfig) -> Defense | None:
    """The trained system that the run's table has besides, frozen; None where there is none.

    Args:
        node: ``cfg.defense``, of whose ``baseline`` :func:`robustforge.config.given.keep_given` has made the
            configuration of a defense and the file of all its weights.

    Raises:
        UserError: the file is gone.
    """
    given = node.get("baseline")
    if given is None:
        return None
    weights = Path(str(given.weights))
    if not weights.is_file():
        raise UserError(f"The weights {weights} of defense.baseline are gone: give baseline once more, or null.")
    baseline = build_defense(given.defense)
    Artifact(weights.parent, "", {}).load_modules(baseline, parts(baseline))
    return baseline.eval().requires_grad_(False)


def parts(defense: Defense) -> tuple[str, ...]:
    """Names of the submodules of a defense, each module once."""
    return tuple(name for name, _ in defense.named_children())
