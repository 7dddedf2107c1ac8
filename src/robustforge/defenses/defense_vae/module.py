"""Defense-VAE (Li & Ji 2019, arXiv:1812.06570): a VAE from adversarial to clean images, and a classifier for it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustforge.attacks.core.attack import Attack
from robustforge.defenses.choices import one_of
from robustforge.defenses.defense_vae.networks import DefenseVAENetwork
from robustforge.defenses.figures import Figure
from robustforge.defenses.purifier import Purifier, offline_attack, with_clean
from robustforge.defenses.stages import Factory, FitStage, Stage, Training, build_seeded
from robustforge.defenses.undefended import offline_stage
from robustforge.losses.purification import bernoulli_error, gaussian_kl
from robustforge.ranges import NonNegativeFloat, Seed, Share
from robustforge.types import Batch, Threat, UserError

MODES = ("plain", "rec", "e2e")

_TRAIN_ATTACK = ("train_attacks", "train_budgets", "threat")


class DefenseVAE(Purifier):
    """A VAE trained on stored adversarial images, before the undefended classifier or one fitted to it.

    Args:
        model: factory of the classifier.
        vae: factory of the network, see :class:`robustforge.defenses.defense_vae.networks.DefenseVAENetwork`.
        train_attacks: attacks of the offline set, by label.
        threat: the default training budget.
        training: how the VAE is optimized.
        fit_training: how the classifier is fitted to it (``rec``, ``e2e``).
        undefended_training: how the undefended classifier is optimized.
        train_budgets: eps by label; ``threat``'s where missing.
        mode: ``plain``: the undefended classifier; ``rec``: the classifier is retrained on what the frozen VAE
            rebuilds; ``e2e``: VAE and classifier are then trained together on the label.
        divergence: weight r of the divergence to N(0, I) (released code: 0).
        mix_clean: share of clean inputs among the training images.
        seed: of initial weights, batches and attacks.

    Raises:
        UserError: unknown mode or a value out of range.

    Notes:
        The latent is drawn in training only; inference takes its mean, as in the released code, whose white-box
        evaluation never attacks the VAE. ``e2e`` is not in that code: here it starts from the trained VAE and the
        undefended classifier, and minimizes cross-entropy alone.
    """

    evaluation_only = ("mode", "fit_training")  # of plain mode, which fits no classifier

    def __init__(
        self,
        model: Factory,
        vae: partial[DefenseVAENetwork],
        train_attacks: Mapping[str, Attack],
        threat: Threat,
        training: Training,
        fit_training: Training,
        undefended_training: Training,
        train_budgets: Mapping[str, NonNegativeFloat] | None = None,
        mode: Literal["plain", "rec", "e2e"] = "rec",
        divergence: NonNegativeFloat = 0.0,
        mix_clean: Share = 0.0,
        seed: Seed = 0,
    ) -> None:
        super().__init__(model, undefended_training, seed=seed)
        one_of("defense.mode", mode, MODES)
        if not 0 <= mix_clean <= 1 or divergence < 0:
            raise UserError(
                f"Defense-VAE has mix_clean={mix_clean} and divergence={divergence}: give a share between 0 and 1 and "
                "a weight of 0 or more."
            )
        self.attack, self.threat = offline_attack(train_attacks, train_budgets or {}, threat)
        self.training_settings, self.fit_training = training, fit_training
        self.mode, self.divergence, self.mix_clean = mode, divergence, mix_clean
        self.vae = build_seeded(vae, seed, "vae")
        if mode != "plain":
            self.classifier = build_seeded(model, seed, "classifier")
        if mode == "e2e":
            self.joint_vae = build_seeded(vae, seed, "vae")

    def figures(self) -> dict[str, Figure]:
        """Its training images: see :meth:`Purifier.offline_figures`."""
        return self.offline_figures(self.attack, self.threat)

    @property
    def head(self) -> nn.Module:
        """The classifier fitted to the VAE, or the undefended one."""
        return self.undefended if self.mode == "plain" else self.classifier

    def rebuild(self, x: Tensor, noise: Tensor | None) -> Tensor:
        """See :meth:`Purifier.rebuild`."""
        rebuilt: Tensor = (self.joint_vae if self.mode == "e2e" else self.vae)(x)
        return rebuilt

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Binary cross-entropy to the clean image, and the divergence when it has a weight."""
        mean, log_variance = (part.float() for part in self.vae.encode(with_clean(batch, self.mix_clean)))
        std = (0.5 * log_variance).exp()
        logits = self.vae.decode(mean + std * torch.randn_like(std)).float()
        terms = {"reconstruction": bernoulli_error(logits, batch.x).mean()}
        if self.divergence:
            terms["divergence"] = self.divergence * gaussian_kl(mean, std).mean()
        return terms

    def fit_losses(self, batch: Batch) -> dict[str, Tensor]:
        """The label's cross-entropy through the VAE, which ``rec`` keeps frozen."""
        rebuilt = self.rebuild(with_clean(batch, self.mix_clean), None)
        return {"cross_entropy": F.cross_entropy(self.head(rebuilt).float(), batch.y)}

    def purifier_stages(self) -> list[Stage]:
        """The offline adversarial set, the VAE, and the fit of the classifier to it."""
        takes, attacked = ("vae", "divergence", "mix_clean", "training"), "adversarial_set"
        vae = self.fit_stage("vae", ("vae",), takes, uses=(), validate=None, adversarial_set=attacked)
        stages: list[Stage] = [offline_stage(self, self.attack, self.threat, _TRAIN_ATTACK), vae]
        if self.mode != "plain":
            trains = ("classifier", "joint_vae") if self.mode == "e2e" else ("classifier",)
            stages.append(
                FitStage(
                    "classifier",
                    trains,
                    self.fit_losses,
                    self.fit_training,
                    takes=("mode", "model", "vae", "mix_clean", "fit_training"),
                    uses=("undefended", "vae"),
                    adversarial_set="adversarial_set",
                    validate=self.purifier_metrics,
                    prepare=self._start,
                )
            )
        return stages

    def _start(self) -> None:
        """Starts from the undefended classifier, and ``e2e`` from the trained VAE too."""
        self.classifier.load_state_dict(self.undefended.state_dict())
        if self.mode == "e2e":
            self.joint_vae.load_state_dict(self.vae.state_dict())
