"""The stages of modular robust redundancy: what is trained, pushed and fitted, in which order, on which images."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from robustforge.defenses.mrr.dictionaries import learn_dictionaries
from robustforge.defenses.mrr.fitting import fit_densities, fit_fusion, fit_leak
from robustforge.defenses.mrr.latent import LatentDefender, PushAway
from robustforge.defenses.mrr.settings import CALIBRATIONS
from robustforge.defenses.stages import CalibrateStage, CraftStage, FitStage, Stage
from robustforge.defenses.undefended import plain_stage
from robustforge.types import Batch, Threat

if TYPE_CHECKING:
    from robustforge.defenses.mrr.module import ModularRobustRedundancy

ANYWHERE = Threat("linf", 1.0)  # pushed images may go anywhere in [0, 1]
_OF_DENSITY = ("latent.density", "latent.variance_kept", "latent.components")
_OF_FUSION = ("fusion.per_class", "fusion.least", "fusion.mixture_components")
_OF_DEFENDER = tuple(
    f"latent.{name}" for name in ("training", "layers", "pool", "gamma", "regularizer", "pull_reduction")
)


def mrr_stages(defense: ModularRobustRedundancy) -> list[Stage]:
    """Victim; defender 1, images pushed away from it, defender 2 on those ...; densities; dictionaries; thresholds.

    Notes:
        A defender's stage does not depend on how many follow: a sweep over N trains each of them once. Mode and
        security parameter of the fusion are no part of any stage but the leak's.
    """
    stages: list[Stage] = []
    victim = "undefended"
    if defense.victim is None:
        stages.append(plain_stage(defense))
    else:
        victim = defense.victim.stages()[-1].name
    stages += _defender_stages(defense, victim)
    fitted: list[str] = []
    if defense.n_defenders:
        kept = {"stack": type(defense.latent.stack).__name__}  # the product holds its weights
        names = tuple(defense.defender_names)
        stages.append(
            CalibrateStage(
                "densities", ("latent",), partial(fit_densities, defense), names, kept, split="train", takes=_OF_DENSITY
            )
        )
        fitted.append("densities")
    if defense.input_settings.enabled:
        chosen = defense.input_settings
        learn = partial(learn_dictionaries, defense.dictionaries, settings=chosen, seed=defense.seed)
        stages.append(CalibrateStage("dictionaries", ("dictionaries",), learn, split="train", takes=("input",)))
        fitted.append("dictionaries")
    if fitted:
        fusion = defense.fusion.settings
        uses = (victim, *fitted)
        split = CALIBRATIONS[fusion.calibration]
        stages.append(
            CalibrateStage("thresholds", ("fusion",), partial(fit_fusion, defense), uses, split=split, takes=_OF_FUSION)
        )
        if fusion.mode == "noisy_or_leaky":
            uses = (*uses, "thresholds")
            stages.append(
                CalibrateStage("leak", ("leak",), partial(fit_leak, defense), uses, split="test", takes=("fusion",))
            )
    return stages


def _defender_stages(defense: ModularRobustRedundancy, victim: str) -> list[Stage]:
    chosen, stages = defense.latent_settings, []
    attack = PushAway(mode=chosen.push, step=chosen.push_step)
    pushed: str | None = None
    for number, name in enumerate(defense.defender_names, 1):
        uses = (victim,) if pushed is None else (victim, pushed)
        stages.append(_defender_stage(defense, name, uses, pushed))
        if chosen.push == "none" or number == defense.n_defenders:
            continue
        trained: LatentDefender = getattr(defense, name)
        source, pushed = pushed, f"pushed_{number + 1}"
        uses = (name,) if source is None else (name, source)
        stages.append(CraftStage(pushed, trained.surface, attack, ANYWHERE, uses, source=source, takes=()))
    return stages


def _defender_stage(defense: ModularRobustRedundancy, name: str, uses: tuple[str, ...], pushed: str | None) -> FitStage:
    defender: LatentDefender = getattr(defense, name)

    def losses(batch: Batch) -> dict[str, Tensor]:
        x = batch.x if batch.x_adv is None else batch.x_adv
        return defender.terms(x, batch.y, defense.latent_settings)

    def validate(batch: Batch) -> dict[str, Tensor]:
        output = defender.away(batch.x)
        assert output.risk is not None
        return {"accuracy": (output.logits.argmax(1) == batch.y).float(), "center_distance": output.risk}

    def prepare() -> None:
        with torch.no_grad():
            defender.checkpoints.network.load_state_dict(defense.undefended.state_dict())

    training = defense.latent_settings.training
    return FitStage(
        name,
        (name,),
        losses,
        training,
        uses=uses,
        adversarial_set=pushed,
        validate=validate,
        prepare=prepare,
        takes=(*_OF_DEFENDER, *(("model",) if defense.victim is None else ("victim",))),
    )
