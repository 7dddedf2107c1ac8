"""Convolutional auto-encoder defense (arXiv:2312.03520): a denoiser from stored adversarial images to clean ones."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from robustforge.attacks.core.attack import Attack
from robustforge.attacks.mixture import Mixture
from robustforge.defenses.base import classify
from robustforge.defenses.cae.hardening import hardening_stage
from robustforge.defenses.cae.networks import Denoiser
from robustforge.defenses.figures import Figure
from robustforge.defenses.purifier import Purifier, offline_attack, with_clean
from robustforge.defenses.robust_loss import AdversarialLoss
from robustforge.defenses.stages import Factory, Stage, Training, build_seeded
from robustforge.defenses.undefended import offline_stage
from robustforge.ranges import NonNegativeFloat, PositiveInt, Seed, Share
from robustforge.types import Batch, Threat, UserError

_TRAIN_ATTACK = ("train_attacks", "train_budgets", "threat")


class ConvAutoEncoder(Purifier):
    """Denoises, then classifies.

    Args:
        model: factory of the classifier (paper: VGG-16).
        denoiser: factory of the auto-encoder, see :class:`robustforge.defenses.cae.networks.Denoiser`.
        train_attacks: attacks of the offline set, by label (paper: one, FGSM or PGD).
        train_budgets: eps by label; ``threat``'s where missing.
        threat: the default training budget.
        training: how the denoiser is optimized.
        undefended_training: how the classifier is optimized.
        mix_clean: share of clean inputs among the denoiser's training images (paper: 0).
        guidance: weight of the mean absolute change of the classifier's logits (paper: 0).
        hardening: robust loss on which a copy of the denoiser goes on training, attacked through the whole system, or
            None (paper).
        hardening_training: how that copy is optimized; None without ``hardening``.
        infer_noise: keep the latent noise at inference.
        draws: of the surface ``eot`` when it is kept.
        seed: of initial weights, batches, attacks and noise.

    Raises:
        UserError: a share outside [0, 1], a negative weight, ``hardening`` without its training, or values that its
            parts refuse.

    Notes:
        With several attacks every image is attacked by one of them, drawn by its sample number. The paper does not say
        whether the latent noise stays at inference; here it does not by default. ``guidance`` is the loss of the
        logits-guided denoiser (Liao et al. 2018, arXiv:1712.02976, Eq. 8): a small error of the pixels need not be a
        small one of the label.
    """

    evaluation_only = ("infer_noise", "draws", "hardening", "hardening_training")

    def __init__(
        self,
        model: Factory,
        denoiser: partial[Denoiser],
        train_attacks: Mapping[str, Attack],
        threat: Threat,
        training: Training,
        undefended_training: Training,
        train_budgets: Mapping[str, NonNegativeFloat] | None = None,
        mix_clean: Share = 0.0,
        guidance: NonNegativeFloat = 0.0,
        hardening: AdversarialLoss | None = None,
        hardening_training: Training | None = None,
        infer_noise: bool = False,
        draws: PositiveInt = 16,
        seed: Seed = 0,
    ) -> None:
        super().__init__(model, undefended_training, draws, seed)
        if not 0 <= mix_clean <= 1:
            raise UserError(f"defense.mix_clean is {mix_clean}: give a share between 0 and 1.")
        if guidance < 0:
            raise UserError(f"defense.guidance is {guidance}: give a weight of 0 or more.")
        self.attack, self.threat = offline_attack(train_attacks, train_budgets or {}, threat)
        self.training_settings, self.mix_clean, self.infer_noise = training, mix_clean, infer_noise
        self.guidance = guidance
        self.denoiser = build_seeded(denoiser, seed, "denoiser")
        self.hardening, self.hardening_training = hardening, hardening_training
        if hardening is not None and hardening_training is None:
            raise UserError("defense.hardening has no training: give defense.hardening_training as well.")
        if hardening is not None:
            self.hardened = build_seeded(denoiser, seed, "denoiser")

    def rebuild(self, x: Tensor, noise: Tensor | None) -> Tensor:
        """See :meth:`Purifier.rebuild`."""
        rebuilt: Tensor = (self.denoiser if self.hardening is None else self.hardened)(x, noise)
        return rebuilt

    @property
    def noise_shape(self) -> tuple[int, ...] | None:
        """The latent's, when noise is kept at inference."""
        return self.denoiser.latent_shape if self.infer_noise else None

    def figures(self) -> dict[str, Figure]:
        """Its training images: see :meth:`Purifier.offline_figures`."""
        return self.offline_figures(self.attack, self.threat)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Mean squared error to the clean image (Sec. 3.3), with latent noise; and the logits' change, if wanted."""
        noise = torch.randn(len(batch.x), *self.denoiser.latent_shape, device=batch.x.device)
        rebuilt = self.denoiser(with_clean(batch, self.mix_clean), noise).float()
        terms = {"mse": F.mse_loss(rebuilt, batch.x)}
        if self.guidance:
            with torch.no_grad():
                wanted = self.undefended(batch.x).float()
            terms["guidance"] = self.guidance * F.l1_loss(self.undefended(rebuilt).float(), wanted)
        return terms

    def purifier_stages(self) -> list[Stage]:
        """The offline adversarial set on the classifier, the denoiser, and its hardened copy, if wanted."""
        takes = ("denoiser", "mix_clean", "guidance", "training")
        fit = self.fit_stage("denoiser", ("denoiser",), takes, adversarial_set="adversarial_set")
        stages: list[Stage] = [offline_stage(self, self.attack, self.threat, _TRAIN_ATTACK), fit]
        if self.hardening is not None:
            stages.append(hardening_stage(self, self.hardening))
        return stages

    def diagnostics(self, batch: Batch) -> dict[str, Tensor]:
        """Whether the denoiser reads a label out of the perturbation (label leaking).

        The training attack is run against a label that is wrong on purpose. It then moves the image away from that
        label, so that a classifier keeps the true one; a denoiser that decodes whose loss was raised answers the wrong
        one.

        Returns:
            (B,) each: ``wrong_label_decoded`` (the answer is the label the attack was given), ``wrong_label_ignored``
            (the answer is the true one), and the base's.
        """
        classes = self.undefended(batch.x[:1]).shape[1]
        wrong = (batch.y + 1 + batch.index % (classes - 1)) % classes
        surface = classify(self.undefended)["end_to_end"]
        if isinstance(self.attack, Mixture):
            return super().diagnostics(batch)
        x_adv = self.attack(surface, batch.x, wrong, self.threat, index=batch.index, seed=self.seed).x_adv
        with torch.no_grad():
            answer = self(x_adv).logits.argmax(1)
        leak = {"wrong_label_decoded": (answer == wrong).float(), "wrong_label_ignored": (answer == batch.y).float()}
        return {**super().diagnostics(batch), **leak}
