"""The stages of modular robust redundancy: what is trained, pushed and fitted, in which order, on which images."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import nn

from robustforge.attacks.core.surface import Surface
from robustforge.defenses.mrr.dictionaries import learn_dictionaries
from robustforge.defenses.mrr.fitting import fit_densities, fit_fusion, fit_leak
from robustforge.defenses.mrr.latent import LatentDefender, PushAway
from robustforge.defenses.mrr.settings import CALIBRATIONS, InputSettings, LatentSettings
from robustforge.defenses.mrr.system import Redundancy
from robustforge.defenses.stages import CalibrateStage, CraftStage, FitStage, Stage, describe
from robustforge.types import Threat

ANYWHERE = Threat("linf", 1.0)  # pushed images may go anywhere in [0, 1]
_OF_DENSITY = ("density", "variance_kept", "components")


def defender_stages(
    defenders: Mapping[str, LatentDefender],
    chosen: LatentSettings,
    victim: nn.Module,
    model_description: Any,
    uses: tuple[str, ...],
) -> list[Stage]:
    """Defender 1, images pushed away from it, defender 2 on those ...

    Args:
        defenders: by name, in the order of their training.
        chosen: how they are trained.
        victim: whose weights they start from.
        model_description: plain description of its factory.
        uses: the stage that trains the victim.

    Notes:
        A defender's stage does not depend on how many follow: a sweep over N trains each of them once.
    """
    stages: list[Stage] = []
    settings: dict[str, Any] = {
        "model": model_description,
        "layers": list(chosen.layers),
        "pool": chosen.pool,
        "gamma": chosen.gamma,
        "regularizer": chosen.regularizer,
        "pull_reduction": chosen.pull_reduction,
    }
    attack = PushAway(mode=chosen.push, step=chosen.push_step)
    pushed: str | None = None
    for number, (name, defender) in enumerate(defenders.items(), 1):
        after = uses if pushed is None else (*uses, pushed)
        losses, start = partial(defender.losses, chosen), partial(defender.start_from, victim)
        validate, training = defender.metrics, chosen.training
        stages.append(FitStage(name, (name,), losses, training, settings, after, pushed, validate, start))
        if chosen.push == "none" or number == len(defenders):
            continue
        source, pushed = pushed, f"pushed_{number + 1}"
        of = (name,) if source is None else (name, source)
        stages.append(CraftStage(pushed, defender.surface, attack, ANYWHERE, of, {}, source))
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
        kept = {name: getattr(latent, name) for name in _OF_DENSITY}
        kept["stack"] = type(system.latent.stack).__name__  # the product holds its weights
        fit = partial(fit_densities, system.latent, list(defenders.values()), latent.variance_kept)
        stages.append(CalibrateStage("densities", ("latent",), fit, tuple(defenders), kept, split="train"))
    if system.dictionaries is not None:
        learn = partial(learn_dictionaries, system.dictionaries, settings=inputs, seed=seed)
        stages.append(CalibrateStage("dictionaries", ("dictionaries",), learn, (), describe(inputs), split="train"))
    if system.fusion is not None:
        fusion = system.fusion.settings
        settings = {"per_class": fusion.per_class, "least": fusion.least, "mixture": fusion.mixture_components}
        uses = (*uses, *(stage.name for stage in stages))
        split = CALIBRATIONS[fusion.calibration]
        fit = partial(fit_fusion, system, seed)
        stages.append(CalibrateStage("thresholds", ("fusion",), fit, uses, settings, split))
        if system.leak is not None:
            settings = {"fusion": describe(fusion)}
            fit = partial(fit_leak, system, surface, seed)
            stages.append(CalibrateStage("leak", ("leak",), fit, (*uses, "thresholds"), settings, split="test"))
    return stages
