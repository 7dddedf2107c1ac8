"""Defense-GAN (Samangouei et al. 2018, arXiv:1805.06605): project the image on a generator's range, classify that."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from robustforge.defenses.defense_gan.latent_search import LatentSearch, one_more_step, search
from robustforge.defenses.defense_gan.networks import Critic, Generator
from robustforge.defenses.purifier import Purifier
from robustforge.defenses.stages import Factory, Stage, Training, build_seeded
from robustforge.losses.purification import critic_loss, gradient_penalty
from robustforge.ranges import NonNegativeFloat, PositiveInt, Seed
from robustforge.types import Batch, UserError


class DefenseGAN(Purifier):
    """A WGAN-GP's generator, searched for the image closest to the input.

    Args:
        model: factory of the classifier.
        generator: factory, see :class:`robustforge.defenses.defense_gan.networks.Generator`.
        critic: factory, see :class:`robustforge.defenses.defense_gan.networks.Critic`.
        search: the search at inference.
        training: how generator and critic are optimized, on clean images; an epoch counts the steps of both.
        undefended_training: how the classifier is optimized.
        critic_steps: steps of the critic before each one of the generator (released code: 5).
        penalty: weight of the gradient penalty (10).
        draws: of the surface ``eot``, over first latents.
        seed: of initial weights, batches and first latents.

    Raises:
        UserError: no critic step, or values that the parts refuse.

    Notes:
        First latents are N(0, 1/d), a function of (seed, image) when deployed. The search cannot be differentiated as
        it runs: ``end_to_end`` unrolls its last step only, ``bpda`` puts the identity in its place. One optimizer holds
        generator and critic; whichever is not on turn has no gradient and is left alone by it.
    """

    evaluation_only = ("search", "draws")

    def __init__(
        self,
        model: Factory,
        generator: partial[Generator],
        critic: partial[Critic],
        search: LatentSearch,
        training: Training,
        undefended_training: Training,
        critic_steps: PositiveInt = 5,
        penalty: NonNegativeFloat = 10.0,
        draws: PositiveInt = 1,
        seed: Seed = 0,
    ) -> None:
        super().__init__(model, undefended_training, draws, seed)
        if critic_steps < 1:
            raise UserError(f"defense.critic_steps is {critic_steps}: give at least 1.")
        self.search, self.training_settings = search, training
        self.critic_steps, self.penalty = critic_steps, penalty
        self.generator = build_seeded(generator, seed, "generator")
        self.critic = build_seeded(critic, seed, "critic")

    @property
    def noise_shape(self) -> tuple[int, ...] | None:
        """First latents of every restart."""
        return (self.search.restarts, self.generator.latent)

    def latents(self, x: Tensor, noise: Tensor | None) -> Tensor:
        """(B, d) latents of the images in the generator's range that are closest to ``x`` (B, C, H, W)."""
        assert noise is not None, "the search starts from noise"
        return search(self.generator, x, noise / self.generator.latent**0.5, self.search)

    def rebuild(self, x: Tensor, noise: Tensor | None) -> Tensor:
        """See :meth:`Purifier.rebuild`; without gradients in ``x``."""
        with torch.no_grad():
            rebuilt: Tensor = self.generator(self.latents(x, noise))
        return rebuilt

    def differentiable(self, x: Tensor, noise: Tensor | None) -> Tensor:
        """:meth:`rebuild` going forward, one more step of the search going backward."""
        z = self.latents(x, noise)
        with torch.no_grad():
            value: Tensor = self.generator(z)
        stand_in = one_more_step(self.generator, x, z, self.search.rate(self.search.steps))
        return value + (stand_in - stand_in.detach())

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The critic's loss with its penalty, or on every ``critic_steps + 1``-th step the generator's."""
        z = torch.randn(len(batch.x), self.generator.latent, device=batch.x.device)
        with torch.autocast(batch.x.device.type, enabled=False):  # the penalty is a derivative of a derivative
            if self.global_step % (self.critic_steps + 1) == self.critic_steps:
                return {"generator": -self.critic(self.generator(z)).mean()}
            with torch.no_grad():
                fake = self.generator(z)
            share = torch.rand(len(batch.x), 1, 1, 1, device=batch.x.device)
            penalty = gradient_penalty(self.critic, batch.x, fake, share)
            return {"critic": critic_loss(self.critic(batch.x), self.critic(fake)), "penalty": self.penalty * penalty}

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Takes the gradient off the critic where the generator's loss left one."""
        if self.active_stage.name == "gan" and self.global_step % (self.critic_steps + 1) == self.critic_steps:
            self.critic.zero_grad(set_to_none=True)

    def purifier_stages(self) -> list[Stage]:
        """One fit of generator and critic on clean images, independent of the classifier."""
        trains, takes = ("generator", "critic"), ("generator", "critic", "critic_steps", "penalty", "training")
        return [self.fit_stage("gan", trains, takes, uses=(), validate=self.critic_metrics)]

    def critic_metrics(self, batch: Batch) -> dict[str, Tensor]:
        """By how much the critic scores held-out images (B,) above generated ones: searching would cost too much."""
        z = torch.randn(len(batch.x), self.generator.latent, device=batch.x.device)
        return {"critic_gap": (self.critic(batch.x) - self.critic(self.generator(z)).mean()).flatten()}
