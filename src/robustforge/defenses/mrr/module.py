"""Modular robust redundancy as a LightningModule: which networks, which stages, which losses."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from robustforge.attacks.core.surface import Surface
from robustforge.defenses.base import Defense, classify
from robustforge.defenses.mrr.fusion import LeakedRates, RiskFusion
from robustforge.defenses.mrr.latent import LatentDefender, LatentDetector
from robustforge.defenses.mrr.settings import FusionSettings, InputSettings, LatentSettings
from robustforge.defenses.mrr.sparse_coding import ClassDictionaries
from robustforge.defenses.mrr.stages import mrr_stages
from robustforge.defenses.mrr.surfaces import mrr_surfaces
from robustforge.defenses.stages import Factory, Stage, Training, build_seeded
from robustforge.types import Batch, DefenseOutput, UserError


class ModularRobustRedundancy(Defense):
    """The victim answers the label, unchanged; latent and input defenders answer how unlikely the image is for it.

    Args:
        model: factory of the victim.
        n_defenders: N latent defenders, 0 for none (paper: 16).
        latent: the defenders on its features.
        input: the defender on patches of the image.
        fusion: how their scores become one risk.
        undefended_training: how the victim is optimized.
        shape: (C, H, W) of the images.
        num_classes: K.
        penalty_weight: weight of the defenders in the white-box surface's logits.
        paper_literal: the white-box surface has the released code's penalty.
        victim: any other defense that is one network, trained as it is alone and then left alone; ``model`` and
            ``undefended_training`` are then not used. None trains the victim on clean images, as the paper does.
        seed: of initial weights, batches, patches.

    Raises:
        UserError: fewer than no defenders, or a victim that is more than one network.

    Notes:
        Scores are those of the class that the victim predicts. Thresholds come from held-out images unless
        ``fusion.calibration`` says otherwise; the released code's come from training images, and its defenders flag
        2.9 % of test images at SP = 1 %. Without any defender the system accepts everything.
    """

    evaluation_only = (
        "n_defenders",
        "latent",
        "input",
        "fusion",
        "penalty_weight",
        "paper_literal",
        "victim",
        "model",
        "undefended_training",
    )

    def __init__(
        self,
        model: Factory,
        n_defenders: int,
        latent: LatentSettings,
        input: InputSettings,
        fusion: FusionSettings,
        undefended_training: Training,
        shape: Sequence[int],
        num_classes: int,
        penalty_weight: float = 1.0,
        paper_literal: bool = False,
        victim: Defense | None = None,
        seed: int = 0,
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
            model = partial(copy.deepcopy, self.undefended)
        for name in self.defender_names:
            made = build_seeded(
                lambda: LatentDefender(model(), latent.layers, latent.pool, shape, num_classes), seed, name
            )
            self.add_module(name, made)
        self.scores_count = 0
        if n_defenders:
            self.latent = LatentDetector(self.defenders, num_classes, latent)
            self.scores_count += n_defenders * len(latent.layers)
        if input.enabled:
            self.dictionaries = ClassDictionaries(
                num_classes, shape[0], input.patch, input.stride, input.atoms, input.nonzeros, input.score
            )
            self.scores_count += 1
        if self.scores_count:
            self.fusion = RiskFusion(self.scores_count, num_classes, fusion)
        if self.scores_count and fusion.mode == "noisy_or_leaky":
            self.leak = LeakedRates(self.scores_count)

    @property
    def defender_names(self) -> list[str]:
        """Attribute names of the latent defenders, in the order of their training."""
        return [f"defender_{number}" for number in range(1, self.n_defenders + 1)]

    @property
    def defenders(self) -> list[LatentDefender]:
        """The latent defenders in the order of their training."""
        return [getattr(self, name) for name in self.defender_names]

    # ---- inference --------------------------------------------------------------------------------------------------

    def forward(self, x: Tensor) -> DefenseOutput:
        """(B, C, H, W) in [0, 1] -> logits (B, K), risk (B,) in [0, 1] and, of OR fusion, detector scores (B, J)."""
        return self.respond(x)

    def respond(
        self, x: Tensor, label: Tensor | None = None, logits: Tensor | None = None, *, smooth: bool = False
    ) -> DefenseOutput:
        """The system's answer; ``label`` (B,) is what the defenders judge, by default the answer of the ``logits``.

        ``smooth`` gives the risk a gradient that does not vanish: see :class:`RiskFusion`.
        """
        logits = self.undefended(x) if logits is None else logits
        if not self.scores_count:
            return DefenseOutput(logits)
        label = logits.argmax(1) if label is None else label
        leaked = self.leak.rates if self.fusion.settings.mode == "noisy_or_leaky" else None
        risk, detector_scores = self.fusion(self.scores(x, label), label, leaked, smooth=smooth)
        return DefenseOutput(logits, risk, None, detector_scores)

    def scores(self, x: Tensor, label: Tensor) -> Tensor:
        """(B, J) float32: how unlikely images (B, C, H, W) are as classes ``label`` (B,), latent defenders first."""
        found = [self.latent(x, label)] if self.n_defenders else []
        found += [self.dictionaries(x, label)[:, None]] if self.input_settings.enabled else []
        return torch.cat(found, 1)

    def detector_scores(self, x: Tensor) -> Tensor | None:
        """(B, J) scores as the predicted class, for the picture of their correlation."""
        return self.scores(x, self.undefended(x).argmax(1)) if self.scores_count > 1 else None

    def surfaces(self) -> dict[str, Surface]:
        """``end_to_end``, ``victim`` and ``white_box``: see the module of that name."""
        return mrr_surfaces(self)

    def systems(self) -> dict[str, dict[str, Surface]]:
        """The victim alone; one that is a defense itself as ``victim``, beside what it is compared with."""
        if self.victim is None:
            return {"undefended": classify(self.undefended)}
        return {**self.victim.systems(), "victim": classify(self.undefended)}

    # ---- training ---------------------------------------------------------------------------------------------------

    def built_on(self) -> list[Defense]:
        """The victim, where it is another defense."""
        return [] if self.victim is None else [self.victim]

    def stages(self) -> list[Stage]:
        """Victim, unless it has its own stages; defenders and pushed images; densities, dictionaries, thresholds."""
        return mrr_stages(self)

    @torch.no_grad()
    def diagnostics(self, batch: Batch) -> dict[str, Tensor]:
        """False alarms at SP on clean images, of one defender (mean) and of any; correlation of the scores.

        Returns:
            (B,) each: ``flagged_by_one``, ``flagged_by_any``, and with several defenders ``score_correlation``, whose
            mean over images is the mean correlation of two different defenders' scores around their held-out means.
        """
        if not self.scores_count:
            return {}
        label = self.undefended(batch.x).argmax(1)
        scores = self.scores(batch.x, label)
        flags = self.fusion.excess(scores, label) > 0
        found = {"flagged_by_one": flags.float().mean(1), "flagged_by_any": flags.any(1).float()}
        count = self.scores_count
        if count > 1:
            z = (scores - self.fusion.mean) / self.fusion.std
            pairs = z.sum(1).square() - z.square().sum(1)  # sum over ordered pairs of different defenders
            found["score_correlation"] = pairs / (count * (count - 1))
        return found


def _network(victim: Defense) -> nn.Module:
    network = victim.classifier_network()
    if network is None:
        raise UserError(
            f"defense.victim is {type(victim).__name__}, whose answer takes more than one network, and latent "
            "defenders are copies of one: choose none, adversarial_training, dynamic or dfl_pcl."
        )
    return network
