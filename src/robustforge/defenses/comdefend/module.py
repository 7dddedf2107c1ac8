"""ComDefend (Jia et al. 2019, arXiv:1811.12673): an image is compressed to bits and rebuilt from them."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from robustforge.defenses.comdefend.networks import CompressionNetwork, compression_loss, hard_bits, soft_bits
from robustforge.defenses.purifier import Purifier
from robustforge.defenses.stages import Factory, Stage, Training, build_seeded
from robustforge.ranges import NonNegativeFloat, PositiveFloat, PositiveInt, Seed
from robustforge.types import Batch, UserError


class ComDefend(Purifier):
    """ComCNN and RecCNN trained together on clean images, before a classifier that is not retrained.

    Args:
        model: factory of the classifier.
        network: factory of both, see :class:`robustforge.defenses.comdefend.networks.CompressionNetwork`.
        training: how they are optimized.
        undefended_training: how the classifier is optimized.
        noise_std: of the Gaussian noise on the code in training, in units of the code (released code: 20).
        penalty: weight of the code's mean square (paper: 0.0001).
        inference_noise: standard deviation of noise that stays on the code at inference, in the same units; 0: none.
        surface_temperature: T of the sigmoid that stands for the quantizer on the way back.
        draws: passes over whose noise the surface ``eot`` averages, where noise stays.
        seed: of initial weights, batches and the deployed noise.

    Raises:
        UserError: values out of range.

    Notes:
        The deployed code is binary, as in the paper. The released script for Fashion-MNIST writes images rebuilt from
        sigmoids with noise of standard deviation 1 instead, which carry more than a bit each. The quantizer has no
        slope: ``end_to_end`` goes straight through it, ``bpda`` puts the identity in the place of both networks.
    """

    evaluation_only = ("inference_noise", "surface_temperature", "draws")

    def __init__(
        self,
        model: Factory,
        network: partial[CompressionNetwork],
        training: Training,
        undefended_training: Training,
        noise_std: NonNegativeFloat = 20.0,
        penalty: NonNegativeFloat = 0.0001,
        inference_noise: NonNegativeFloat = 0.0,
        surface_temperature: PositiveFloat = 3.0,
        draws: PositiveInt = 16,
        seed: Seed = 0,
    ) -> None:
        super().__init__(model, undefended_training, draws, seed)
        if min(noise_std, penalty, inference_noise) < 0 or not surface_temperature > 0:
            raise UserError(
                f"ComDefend has noise_std={noise_std}, penalty={penalty}, inference_noise={inference_noise} and "
                f"surface_temperature={surface_temperature}: give 0 or more, and a temperature above 0."
            )
        self.training_settings, self.noise_std, self.penalty = training, noise_std, penalty
        self.inference_noise, self.surface_temperature = inference_noise, surface_temperature
        self.network = build_seeded(network, seed, "network")

    @property
    def noise_shape(self) -> tuple[int, ...] | None:
        """The code's, when noise stays at inference."""
        return self.network.code_shape if self.inference_noise else None

    def rebuild(self, x: Tensor, noise: Tensor | None) -> Tensor:
        """See :meth:`Purifier.rebuild`; gradients go straight through the quantizer."""
        code = self.network.encode(x).float()
        if noise is not None:
            code = code - self.inference_noise * noise
        rebuilt: Tensor = self.network.decode(hard_bits(code, self.surface_temperature))
        return rebuilt

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """See :func:`robustforge.defenses.comdefend.networks.compression_loss`."""
        code = self.network.encode(batch.x).float()
        rebuilt = self.network.decode(soft_bits(code, self.noise_std * torch.randn_like(code))).float()
        return compression_loss(rebuilt, batch.x, code, self.penalty)

    def purifier_stages(self) -> list[Stage]:
        """One fit of both networks on clean images."""
        return [self.fit_stage("network", ("network",), ("network", "noise_std", "penalty", "training"))]
