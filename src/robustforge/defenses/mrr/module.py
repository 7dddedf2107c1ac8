"""Modular robust redundancy as a LightningModule: which networks, which stages, which losses."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from robustforge.attacks.core.surface import Surface
from robustforge.defenses.base import Defense, classify
from robustforge.defenses.figures import Figure
from robustforge.defenses.mrr.figures import mrr_figures
from robustforge.defenses.mrr.fusion import LeakedRates, RiskFusion
from robustforge.defenses.mrr.latent import LatentDefender, LatentDetector
from robustforge.defenses.mrr.networks import Checkpoints
from robustforge.defenses.mrr.settings import FusionSettings, InputSettings, LatentSettings
from robustforge.defenses.mrr.sparse_coding import ClassDictionaries
from robustforge.defenses.mrr.stages import defender_stages, fitted_stages
from robustforge.defenses.mrr.surfaces import mrr_surfaces
from robustforge.defenses.mrr.system import Redundancy
from robustforge.defenses.stages import Factory, Stage, Training, build_seeded
from robustforge.defenses.undefended import plain_stage
from robustforge.ranges import Classes, NonNegativeFloat, NonNegativeInt, Seed, Shape
from robustforge.types import Batch, DefenseOutput, UserError


class ModularRobustRedundancy(Defense):
    """The victim answers the label, unchanged; latent and input defenders answer how unlikely the image is for it.

    Args:
        model: factory of the victim, and of defenders that start from fresh weights.
        n_defenders: N latent defenders, 0 for none (paper: 16).
        latent: the defenders on its features.
        input: the defender on patches of the image.
        fusion: how their scores become one risk.
        undefended_training: how the victim is optimized.
        shape: (C, H, W) of the images.
        num_classes: K.
        penalty_weight: weight of the defenders in the white-box surface's logits.
        paper_literal: the white-box surface has the released code's penalty.
        victim: any other defense that is one network, trained as it is alone and then left alone;
            ``undefended_training`` is then not used. None trains the victim on clean images, as the paper does.
        seed: of initial weights, batches, patches.

    Raises:
        UserError: fewer than no defenders, a victim that is more than one network, or a variant of the model with
            settings that it does not have.

    Notes:
        Scores are those of the class that the victim predicts. Thresholds come from held-out images unless
        ``fusion.calibration`` says otherwise; the released code's come from training images, and its defenders flag
        2.9 % of test images at SP = 1 %. Without any defender the system accepts everything.
    """

    evaluation_only = (
        *("n_defenders", "latent", "input", "fusion", "penalty_weight"),
        *("paper_literal", "victim", "model", "undefended_training"),
    )

    def __init__(
        self,
        model: Factory,
        n_defenders: NonNegativeInt,
        latent: LatentSettings,
        input: InputSettings,
        fusion: FusionSettings,
        undefended_training: Training,
        shape: Shape,
        num_classes: Classes,
        penalty_weight: NonNegativeFloat = 1.0,
        paper_literal: bool = False,
        victim: Defense | None = None,
        seed: Seed = 0,
    ) -> None:
        super().__init__(seed=seed)
        if n_defenders < 0:
            raise UserError(f"defense.n_defenders is {n_defenders}: give 0 or more.")
        self.n_defenders = n_defenders
        self.victim, self.undefended_training = victim, undefended_training
        self.latent_settings, self.input_settings = latent, input
        self.penalty_weight, self.paper_literal = penalty_weight, paper_literal
        if victim is None:
            self.undefended = build_seeded(model, seed, "undefended")
        else:  # which this defense leaves alone: undefended by its defenders, whatever it is by itself
            self.undefended = _network(victim)
            model = partial(copy.deepcopy, self.undefended) if latent.init == "victim" else model
        for number, name in enumerate(self.defender_names, 1):
            make = partial(_defender, model, latent, latent.variant(number), shape, num_classes)
            self.add_module(name, build_seeded(make, seed, name))
        self.latent = LatentDetector(self.defenders, num_classes, latent) if n_defenders else None
        self.dictionaries = _dictionaries(num_classes, shape[0], input) if input.enabled else None
        count = n_defenders * latent.scores + input.enabled
        self.fusion = RiskFusion(count, num_classes, fusion) if count else None
        self.leak = LeakedRates(count) if count and fusion.mode == "noisy_or_leaky" else None

    @property
    def defender_names(self) -> list[str]:
        """Attribute names of the latent defenders, in the order of their training."""
        return [f"defender_{number}" for number in range(1, self.n_defenders + 1)]

    @property
    def defenders(self) -> list[LatentDefender]:
        """The latent defenders in the order of their training."""
        return [getattr(self, name) for name in self.defender_names]

    @property
    def system(self) -> Redundancy:
        """The networks with their answer."""
        return Redundancy(self.undefended, self.latent, self.dictionaries, self.fusion, self.leak)

    def forward(self, x: Tensor) -> DefenseOutput:
        """(B, C, H, W) in [0, 1] -> logits (B, K), risk (B,) in [0, 1] and, of OR fusion, detector scores (B, J)."""
        return self.system.respond(x)

    def surfaces(self) -> dict[str, Surface]:
        """``end_to_end``, ``victim`` and ``white_box``: see the module of that name."""
        return mrr_surfaces(self, self.system, self.penalty_weight, self.paper_literal)

    def figures(self) -> dict[str, Figure]:
        """Correlations of the scores, features and what slips through: see the module of that name."""
        layers, pool = self.latent_settings.layers, self.latent_settings.pool
        networks: dict[str, nn.Module] = {"victim": Checkpoints(self.undefended, layers, pool)}
        if self.defenders:
            networks["defender"] = self.defenders[0]
        return mrr_figures(self.system, self.surfaces()["end_to_end"], networks)

    def systems(self) -> dict[str, dict[str, Surface]]:
        """The victim alone; one that is a defense itself as ``victim``, beside what it is compared with."""
        if self.victim is None:
            return {"undefended": classify(self.undefended)}
        return {**self.victim.systems(), "victim": classify(self.undefended)}

    def built_on(self) -> list[Defense]:
        """The victim, where it is another defense."""
        return [] if self.victim is None else [self.victim]

    def stages(self) -> list[Stage]:
        """Victim, unless it has its own stages; defenders and pushed images; densities, dictionaries, thresholds."""
        latent, inputs = self.latent_settings, self.input_settings
        stages: list[Stage] = []
        architecture, uses = "model", ("undefended",)
        if self.victim is None:
            stages.append(plain_stage(self))
        else:
            uses = (self.victim.stages()[-1].name,)
            architecture = "victim" if latent.init == "victim" else "model"
        defenders = dict(zip(self.defender_names, self.defenders, strict=True))
        stages += defender_stages(defenders, latent, self.undefended, architecture, uses)
        surface = self.surfaces()["victim"]
        return stages + fitted_stages(self.system, defenders, latent, inputs, surface, self.seed, uses)

    @torch.no_grad()
    def diagnostics(self, batch: Batch) -> dict[str, Tensor]:
        """False alarms and correlation of the scores: see :meth:`Redundancy.numbers`."""
        return self.system.numbers(batch)


def _defender(
    model: Factory, latent: LatentSettings, changes: Mapping[str, Any], shape: Shape, num_classes: Classes
) -> LatentDefender:
    try:
        network = model(**changes)
    except TypeError as error:
        if not changes:
            raise
        raise UserError(
            f"defense.latent.variants asks for a model with {', '.join(changes)}, which this one does not have: choose "
            f"settings of conf/model. ({error})"
        ) from error
    return LatentDefender(network, latent.layers, latent.pool, shape, num_classes)


def _dictionaries(num_classes: Classes, channels: int, chosen: InputSettings) -> ClassDictionaries:
    sizes = chosen.patch, chosen.stride, chosen.atoms, chosen.nonzeros
    return ClassDictionaries(num_classes, channels, *sizes, chosen.score)


def _network(victim: Defense) -> nn.Module:
    network = victim.classifier_network()
    if network is None:
        raise UserError(
            f"defense.victim is {type(victim).__name__}, whose answer takes more than one network, and latent "
            "defenders are copies of one: choose none, adversarial_training, dynamic or dfl_pcl."
        )
    if not victim.stages():  # the keys of what is fitted to it go by its stage
        raise UserError(
            f"defense.victim is {type(victim).__name__}, which is trained already: give its run folder or its weights "
            "as defense.undefended_from, and its network as model."
        )
    return network
