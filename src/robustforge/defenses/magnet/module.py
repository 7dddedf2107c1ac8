"""MagNet (Meng & Chen 2017, arXiv:1705.09064): detectors that reject, and a reformer that rebuilds what is left."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from robustforge.defenses.magnet.networks import SigmoidAutoencoder
from robustforge.defenses.purifier import Purifier
from robustforge.defenses.stages import Factory, Stage, Training, build_seeded
from robustforge.losses.purification import jensen_shannon
from robustforge.nn.running_moments import RunningMoments
from robustforge.ranges import NonNegativeFloat, PositiveFloat, Seed
from robustforge.types import Batch, DefenseOutput, UserError


class MagNet(Purifier):
    """Two auto-encoders trained on noisy clean images, without any attack.

    Args:
        model: factory of the classifier.
        reformer: factory of the auto-encoder that rebuilds (AE-I), a
            :class:`robustforge.defenses.magnet.networks.SigmoidAutoencoder`.
        second: factory of the other one (AE-II), a detector only.
        training: how both are optimized.
        undefended_training: how the classifier is optimized.
        noise_std: of the Gaussian noise on training images, pixel units (MNIST 0.1, CIFAR-10 0.025).
        temperatures: of the Jensen-Shannon detectors (CIFAR-10: 10, 40; MNIST: none).
        seed: of initial weights and batches.

    Raises:
        UserError: negative noise or a temperature that is not positive.

    Notes:
        The paper gives every detector a threshold of its own. Here each score is put in standard deviations of clean
        training images, the risk is their maximum, and the evaluation fits one threshold (set
        ``protocol.false_positive_rate``, or nothing is rejected). The activity penalty of 1e-9 is left out.
    """

    def __init__(
        self,
        model: Factory,
        reformer: partial[SigmoidAutoencoder],
        second: partial[SigmoidAutoencoder],
        training: Training,
        undefended_training: Training,
        noise_std: NonNegativeFloat = 0.1,
        temperatures: Sequence[PositiveFloat] = (10.0, 40.0),
        seed: Seed = 0,
    ) -> None:
        super().__init__(model, undefended_training, seed=seed)
        if noise_std < 0 or any(not value > 0 for value in temperatures):
            raise UserError(
                f"MagNet has noise_std={noise_std} and temperatures={list(temperatures)}: give noise of 0 or more and "
                "temperatures above 0."
            )
        self.training_settings, self.noise_std, self.temperatures = training, noise_std, tuple(temperatures)
        self.reformer = build_seeded(reformer, seed, "reformer")
        self.second = build_seeded(second, seed, "second")
        self.scale = RunningMoments(2 + len(self.temperatures))

    def rebuild(self, x: Tensor, noise: Tensor | None) -> Tensor:
        """See :meth:`Purifier.rebuild`."""
        rebuilt: Tensor = self.reformer(x)
        return rebuilt

    def respond(self, x: Tensor, purified: Tensor) -> DefenseOutput:
        """See :meth:`Purifier.respond`; ``detector_scores`` are the detectors' scores, ``risk`` their maximum."""
        logits = self.head(purified)
        detector_scores = self.scale(self.scores(x, purified, logits))
        return DefenseOutput(logits, detector_scores.amax(1), purified, detector_scores)

    def scores(self, x: Tensor, purified: Tensor, logits: Tensor) -> Tensor:
        """What the detectors measure.

        Args:
            x: (B, C, H, W).
            purified: what the reformer made of it.
            logits: the classifier's answer to that, (B, K).

        Returns:
            (B, 2 + J): AE-I's mean squared error, AE-II's mean absolute error, divergences at J temperatures.
        """
        errors = [(x - purified).square().flatten(1).mean(1), (x - self.second(x)).abs().flatten(1).mean(1)]
        if self.temperatures:
            plain = self.head(x).float()
            errors += [jensen_shannon(plain, logits.float(), value) for value in self.temperatures]
        return torch.stack(errors, 1).float()

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Both auto-encoders' mean squared errors on noisy images; the clean scores' statistics are kept on the way."""
        noisy = (batch.x + self.noise_std * torch.randn_like(batch.x)).clamp(0, 1)
        with torch.no_grad():
            purified = self.reformer(batch.x)
            self.scale.update(self.scores(batch.x, purified, self.head(purified)))
        return {
            "reformer": F.mse_loss(self.reformer(noisy).float(), batch.x),
            "second": F.mse_loss(self.second(noisy).float(), batch.x),
        }

    def purifier_stages(self) -> list[Stage]:
        """One fit of both auto-encoders and their scores' scale."""
        takes = ("reformer", "second", "noise_std", "temperatures", "training")
        return [self.fit_stage("autoencoders", ("reformer", "second", "scale"), takes)]
