"""APE-GAN (Shen et al. 2017, arXiv:1707.05474): a GAN's generator takes the perturbation off stored attacked images."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor

from robustforge.attacks.core.attack import Attack
from robustforge.defenses.ape_gan.losses import (
    PIXEL_LOSSES,
    PixelLoss,
    adversarial_loss,
    discriminator_loss,
    pixel_error,
)
from robustforge.defenses.ape_gan.networks import Discriminator, Generator
from robustforge.defenses.choices import one_of
from robustforge.defenses.figures import Figure
from robustforge.defenses.purifier import Purifier, offline_attack, with_clean
from robustforge.defenses.stages import Factory, Stage, Training, build_seeded
from robustforge.defenses.undefended import offline_stage
from robustforge.ranges import NonNegativeFloat, PositiveInt, Seed, Share
from robustforge.types import Batch, Threat, UserError

_TRAIN_ATTACK = ("train_attacks", "train_budgets", "threat")


class APEGAN(Purifier):
    """A generator from attacked to clean images, trained against a discriminator of the two.

    Args:
        model: factory of the classifier.
        generator: factory, see :class:`robustforge.defenses.ape_gan.networks.Generator`.
        discriminator: factory, see :class:`robustforge.defenses.ape_gan.networks.Discriminator`.
        train_attacks: attacks of the offline set, by label (paper: FGSM).
        threat: the default training budget.
        training: how generator and discriminator are optimized; an epoch counts the steps of both.
        undefended_training: how the classifier is optimized.
        train_budgets: eps by label; ``threat``'s where missing.
        pixel_loss: ``rmse`` (released code) or ``mse`` (paper).
        pixel_weight: of that loss in the generator's (released code: 0.9; an older copy: 0.7).
        adversarial_weight: of the discriminator's answer in it (released code: 0.02; an older copy: 0.3).
        generator_steps: steps of the generator after each one of the discriminator (released code: 2).
        mix_clean: share of clean inputs among the training images (paper: 0).
        seed: of initial weights, batches and attacks.

    Raises:
        UserError: an unknown loss, or a value out of range.

    Notes:
        Each step has a batch of its own; in the released code the three steps share one, so that its 2 epochs are 6
        here. One optimizer holds both networks; whichever is not on turn has no gradient and is left alone by it.
    """

    def __init__(
        self,
        model: Factory,
        generator: partial[Generator],
        discriminator: partial[Discriminator],
        train_attacks: Mapping[str, Attack],
        threat: Threat,
        training: Training,
        undefended_training: Training,
        train_budgets: Mapping[str, NonNegativeFloat] | None = None,
        pixel_loss: PixelLoss = "rmse",
        pixel_weight: NonNegativeFloat = 0.9,
        adversarial_weight: NonNegativeFloat = 0.02,
        generator_steps: PositiveInt = 2,
        mix_clean: Share = 0.0,
        seed: Seed = 0,
    ) -> None:
        super().__init__(model, undefended_training, seed=seed)
        one_of("defense.pixel_loss", pixel_loss, PIXEL_LOSSES)
        if generator_steps < 1 or min(pixel_weight, adversarial_weight) < 0 or not 0 <= mix_clean <= 1:
            raise UserError(
                f"APE-GAN has generator_steps={generator_steps}, pixel_weight={pixel_weight}, adversarial_weight="
                f"{adversarial_weight} and mix_clean={mix_clean}: give at least 1 step, weights of 0 or more and a "
                "share between 0 and 1."
            )
        self.attack, self.threat = offline_attack(train_attacks, train_budgets or {}, threat)
        self.training_settings, self.mix_clean, self.generator_steps = training, mix_clean, generator_steps
        self.pixel_loss, self.pixel_weight, self.adversarial_weight = pixel_loss, pixel_weight, adversarial_weight
        self.generator = build_seeded(generator, seed, "generator")
        self.discriminator = build_seeded(discriminator, seed, "discriminator")

    def figures(self) -> dict[str, Figure]:
        """Its training images: see :meth:`Purifier.offline_figures`."""
        return self.offline_figures(self.attack, self.threat)

    def rebuild(self, x: Tensor, noise: Tensor | None) -> Tensor:
        """See :meth:`Purifier.rebuild`."""
        rebuilt: Tensor = self.generator(x)
        return rebuilt

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The discriminator's loss, and on the next ``generator_steps`` steps the generator's."""
        attacked = with_clean(batch, self.mix_clean)
        if self._generator_is_on():
            rebuilt = self.generator(attacked).float()
            found_out = adversarial_loss(self.discriminator(rebuilt).float())
            return {
                "pixels": self.pixel_weight * pixel_error(rebuilt, batch.x, self.pixel_loss),
                "adversarial": self.adversarial_weight * found_out,
            }
        with torch.no_grad():
            rebuilt = self.generator(attacked)
        real, fake = self.discriminator(batch.x), self.discriminator(rebuilt)
        return {"discriminator": discriminator_loss(real.float(), fake.float())}

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Takes the gradient off the discriminator where the generator's loss left one."""
        if self.active_stage.name == "gan" and self._generator_is_on():
            self.discriminator.zero_grad(set_to_none=True)

    def purifier_stages(self) -> list[Stage]:
        """The offline adversarial set on the classifier, then generator and discriminator."""
        losses = ("pixel_loss", "pixel_weight", "adversarial_weight", "generator_steps", "mix_clean")
        takes = ("generator", "discriminator", *losses, "training")
        trains, made = ("generator", "discriminator"), "adversarial_set"
        fit = self.fit_stage("gan", trains, takes, adversarial_set=made)
        return [offline_stage(self, self.attack, self.threat, _TRAIN_ATTACK), fit]

    def _generator_is_on(self) -> bool:
        return self.global_step % (self.generator_steps + 1) != 0
