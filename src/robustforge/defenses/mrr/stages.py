"""The stages of modular robust redundancy: what is trained, pushed and fitted, in which order, on which images."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from torch import nn

from robustforge.attacks.core.surface import Surface
from robustforge.defenses.mrr.dictionaries import learn_dictionaries
from robustforge.defenses.mrr.fitting import fit_densities, fit_fusion, fit_leak
from robustforge.defenses.mrr.latent import LatentDefender, PushAway
from robustforge.defenses.mrr.settings import CALIBRATIONS, InputSettings, LatentSettings
from robustforge.defenses.mrr.system import Redundancy
from robustforge.defenses.stages import CalibrateStage, CraftStage, FitStage, Stage
from robustforge.types import Threat

ANYWHERE = Threat("linf", 1.0)  # pushed images may go anywhere in [0, 1]
_OF_DENSITY = ("latent.density", "latent.variance_kept", "latent.components")
_OF_FUSION = ("fusion.per_class", "fusion.least", "fusion.mixture_components", "latent.disagreement")
_OF_DEFENDER = tuple(
    f"latent.{name}" for name in ("training", "init", "layers", "pool", "gamma", "regularizer", "pull_reduction")
)


def defender_stages(
    defenders: Mapping[str, LatentDefender],
    chosen: LatentSettings,
    victim: nn.Module,
    architecture: str,
    uses: tuple[str, ...],
) -> list[Stage]:
    """Defender 1, images pushed away from it, defender 2 on those ...

    Args:
        defenders: by name, in the order of their training.
        chosen: how they are trained.
        victim: whose weights they start from, unless they are fresh.
        architecture: the argument of the defense that tells it, ``model`` or ``victim``.
        uses: the stage that trains the victim.

    Notes:
        A defender's stage does not depend on how many follow: a sweep over N trains each of them once. Fresh defenders
        do not depend on the victim either, so that several victims are watched by the same ones.
    """
    stages: list[Stage] = []
    pushed: str | None = None
    uses = uses if chosen.init == "victim" else ()
    for number, (name, defender) in enumerate(defenders.items(), 1):
        after = uses if pushed is None else (*uses, pushed)
        losses = partial(defender.losses, chosen)
        start = partial(defender.start_from, victim) if chosen.init == "victim" else None
        validate, training, takes = defender.metrics, chosen.training, (*_OF_DEFENDER, architecture)
        changes = {"variant": dict(chosen.variant(number))} if chosen.variant(number) else {}
        fit = FitStage(name, (name,), losses, training, changes, after, pushed, validate, start, takes=takes)
        stages.append(fit)
        if chosen.push == "none" or number == len(defenders):
            continue
        source, pushed = pushed, f"pushed_{number + 1}"
        of = (name,) if source is None else (name, source)
        attack = PushAway(mode=chosen.push, step=chosen.push_step)
        stages.append(CraftStage(pushed, defender.surface, attack, ANYWHERE, of, source=source, takes=()))
    return stages


def fitted_stages(
    system: Redundancy,
    defenders: Mapping[str, LatentDefender],
    latent: LatentSettings,
    inputs: InputSettings,
    surface: Surface,
    seed: int,
    uses: tuple[str, ...],
) -> list[Stage]:
    """Densities, dictionaries, thresholds and, for the fusion that leaks, its weights.

    Args:
        system: whose parts are fitted.
        defenders: by name, whose weights the detector copies.
        latent: how densities are fitted.
        inputs: how dictionaries are.
        surface: attacked for the leak.
        seed: of patches, mixtures and attacks.
        uses: the stage that trains the victim.

    Notes:
        Mode and security parameter of the fusion are no part of any stage but the leak's.
    """
    stages: list[Stage] = []
    if system.latent is not None:
        kept = {"stack": type(system.latent.stack).__name__}  # the product holds its weights
        fit = partial(fit_densities, system.latent, list(defenders.values()), latent.variance_kept)
        stages.append(CalibrateStage("densities", ("latent",), fit, tuple(defenders), kept, "train", _OF_DENSITY))
    if system.dictionaries is not None:
        learn = partial(learn_dictionaries, system.dictionaries, settings=inputs, seed=seed)
        stages.append(CalibrateStage("dictionaries", ("dictionaries",), learn, split="train", takes=("input",)))
    if system.fusion is not None:
        fusion = system.fusion.settings
        uses = (*uses, *(stage.name for stage in stages))
        split = CALIBRATIONS[fusion.calibration]
        fit = partial(fit_fusion, system, seed)
        stages.append(CalibrateStage("thresholds", ("fusion",), fit, uses, split=split, takes=_OF_FUSION))
        if system.leak is not None:
            fit, uses = partial(fit_leak, system, surface, seed), (*uses, "thresholds")
            stages.append(CalibrateStage("leak", ("leak",), fit, uses, split="test", takes=("fusion",)))
    return stages
