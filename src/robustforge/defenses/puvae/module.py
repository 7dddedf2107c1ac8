"""PuVAE (Hwang et al. 2019, arXiv:1903.00585): rebuild the image under every label, keep the closest, classify it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from robustforge.attacks.core.surface import Surface
from robustforge.defenses.purifier import ATTACKER, Purifier
from robustforge.defenses.puvae.networks import ConditionalVAE
from robustforge.defenses.stages import Factory, Stage, Training, build_seeded
from robustforge.losses.purification import bernoulli_error, gaussian_kl
from robustforge.nn.straight_through import straight_through_one_hot
from robustforge.ranges import NonNegativeFloat, PositiveFloat, PositiveInt, Seed
from robustforge.types import Batch, UserError


class PuVAE(Purifier):
    """A class-conditional VAE before a frozen classifier.

    Args:
        model: factory of the classifier.
        vae: factory of the network, see :class:`robustforge.defenses.puvae.networks.ConditionalVAE`.
        training: how it is optimized, on clean images.
        undefended_training: how the classifier is optimized.
        weights: of reconstruction (summed over pixels), divergence (averaged over the latent) and classification
            (third-party code: 0.01, 0.1, 10).
        inference_std: factor on the posterior's standard deviation at inference (0.1); 0 takes its mean.
        surface_temperature: T of the surface ``soft_class``'s softmax(-error / T), pixel units.
        draws: of the surface ``eot``.
        seed: of initial weights, batches and noise.

    Raises:
        UserError: weights or factors out of range.

    Notes:
        The code that the weights come from does not settle over what each term is summed. With both summed they are a
        beta-VAE with beta 10, which collapses: the latent keeps 0.3 nats and images are rebuilt worse than by the mean
        of their class. With both averaged beta is larger still. With the error summed over pixels and the divergence
        averaged over a latent of 32, beta is 0.3 and the classifier's share is large: 30 nats, half of the class mean's
        error, and the labels of rebuilt images right where the closest class is.

        The choice of the closest rebuilt image has no gradient. ``end_to_end`` is blind to it; ``soft_class`` adds the
        gradient of a soft minimum over the classes, averaged over ``draws``.
    """

    evaluation_only = ("inference_std", "surface_temperature", "draws")

    def __init__(
        self,
        model: Factory,
        vae: partial[ConditionalVAE],
        training: Training,
        undefended_training: Training,
        weights: tuple[NonNegativeFloat, NonNegativeFloat, NonNegativeFloat] = (0.01, 0.1, 10.0),
        inference_std: NonNegativeFloat = 0.1,
        surface_temperature: PositiveFloat = 0.05,
        draws: PositiveInt = 16,
        seed: Seed = 0,
    ) -> None:
        super().__init__(model, undefended_training, draws, seed)
        if len(weights) != 3 or min(weights) < 0 or inference_std < 0 or not surface_temperature > 0:
            raise UserError(
                f"PuVAE has weights={list(weights)}, inference_std={inference_std} and surface_temperature="
                f"{surface_temperature}: give three weights and a factor of 0 or more, and a temperature above 0."
            )
        self.training_settings, self.weights, self.inference_std = training, tuple(weights), inference_std
        self.surface_temperature = surface_temperature
        self.vae = build_seeded(vae, seed, "vae")

    @property
    def noise_shape(self) -> tuple[int, ...] | None:
        """One draw of the latent a class."""
        return (self.vae.num_classes, self.vae.latent) if self.inference_std else None

    def candidates(self, x: Tensor, noise: Tensor | None) -> tuple[Tensor, Tensor]:
        """The image rebuilt under every label.

        Returns:
            (images (B, K, C, H, W) in [0, 1], their root mean squared errors (B, K)).
        """
        labels = torch.arange(self.vae.num_classes, device=x.device).expand(len(x), -1)
        mean, std = self.vae.encode(x, labels)
        z = mean if noise is None else mean + self.inference_std * std * noise
        images = self.vae.decode(z, labels).float().sigmoid()
        # a floor far below one gray level: the root has no slope at 0
        return images, ((images - x[:, None]).square().flatten(2).mean(2) + 1e-8).sqrt()

    def rebuild(self, x: Tensor, noise: Tensor | None) -> Tensor:
        """The closest candidate; see :meth:`Purifier.rebuild`."""
        images, errors = self.candidates(x, noise)
        return images[torch.arange(len(x), device=x.device), errors.argmin(1)]

    def soft_rebuild(self, x: Tensor, noise: Tensor | None) -> Tensor:
        """:meth:`rebuild` going forward, a soft minimum over the classes going backward."""
        images, errors = self.candidates(x, noise)
        choice = straight_through_one_hot(-errors, self.surface_temperature)
        return torch.einsum("bk,bkchw->bchw", choice, images)

    def surfaces(self) -> dict[str, Surface]:
        """The base's and ``soft_class``."""
        found = super().surfaces()
        draws = self.draws if self.noise_shape is not None else 1

        def soft_class(x: Tensor, _: Tensor) -> tuple[Tensor]:
            return (self.head(self.soft_rebuild(x, self.noise(x, ATTACKER, draws))),)

        end_to_end = found["end_to_end"]
        return {**found, "soft_class": replace(end_to_end, name="soft_class", attacker_logits=soft_class, draws=draws)}

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Reconstruction and divergence under the true label, and the classifier's loss on the rebuilt image."""
        labels = batch.y[:, None]
        mean, std = (part[:, 0].float() for part in self.vae.encode(batch.x, labels))
        logits = self.vae.decode((mean + std * torch.randn_like(std))[:, None], labels)[:, 0].float()
        reconstruction, divergence, classification = self.weights
        return {
            "reconstruction": reconstruction * bernoulli_error(logits, batch.x).mean(),
            "divergence": divergence * gaussian_kl(mean, std).mean() / self.vae.latent,
            "classification": classification * F.cross_entropy(self.undefended(logits.sigmoid()).float(), batch.y),
        }

    def purifier_stages(self) -> list[Stage]:
        """One fit of the VAE on clean images."""
        return [self.fit_stage("vae", ("vae",), ("vae", "weights", "training"))]
