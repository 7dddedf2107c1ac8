"""PixelDefend (Song et al. 2018, arXiv:1710.10766): each pixel moves to where clean images are likely."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from robustforge.defenses.pixel_defend.logistic_mixture import bits_per_dimension
from robustforge.defenses.pixel_defend.networks import PixelCNN
from robustforge.defenses.pixel_defend.raster import likelier, purify
from robustforge.defenses.pixel_defend.recent import Recent
from robustforge.defenses.purifier import Purifier
from robustforge.defenses.stages import Factory, Stage, Training, build_seeded, check_average
from robustforge.nn.straight_through import backward_pass
from robustforge.ranges import OpenShare, Seed, Share
from robustforge.types import Batch, DefenseOutput, UserError


class PixelDefend(Purifier):
    """A PixelCNN++ of clean images, and the greedy search for the likeliest image near the input.

    Args:
        model: factory of the classifier.
        pixelcnn: factory of the network, see :class:`robustforge.defenses.pixel_defend.networks.PixelCNN`.
        training: how it is optimized, on clean images.
        undefended_training: how the classifier is optimized.
        eps_defend: how far a pixel may move, in units of [0, 1] (paper: 32/255 on Fashion-MNIST, 16/255 on CIFAR-10).
        only_likelier: leave an image as it is where the search, which looks at one pixel after another, ends in a less
            likely one (ours; the paper takes its end in any case).
        average: decay of the running average of the network's weights (PixelCNN++: 0.9995); None for none.
        seed: of initial weights and batches.

    Raises:
        UserError: a distance outside [0, 1], or a decay outside (0, 1).

    Notes:
        The risk is the input's negative log-likelihood, bits a dimension. The paper's detector ranks it among those of
        the training images; as the evaluation fits the threshold on held-out training images, ``protocol.
        false_positive_rate`` is the level of that test. Without a rate nothing is rejected.

        The search is a choice of gray levels and has no derivative: ``end_to_end`` takes the identity in its place on
        the way back, as ``bpda`` does (Athalye et al. 2018 break the defense so), and its risk is differentiated as
        it is. The adaptive variant, which leaves likely images alone, is left out.
    """

    evaluation_only = ("eps_defend", "only_likelier")

    def __init__(
        self,
        model: Factory,
        pixelcnn: partial[PixelCNN],
        training: Training,
        undefended_training: Training,
        eps_defend: Share = 32 / 255,
        only_likelier: bool = True,
        average: OpenShare | None = None,
        seed: Seed = 0,
    ) -> None:
        super().__init__(model, undefended_training, seed=seed)
        if not 0 <= eps_defend <= 1:
            raise UserError(f"defense.eps_defend is {eps_defend}: give a distance between 0 and 1.")
        check_average(average)
        self.training_settings, self.average = training, average
        self.eps_defend, self.only_likelier = eps_defend, only_likelier
        self.pixelcnn = build_seeded(pixelcnn, seed, "pixelcnn")
        self._recent = Recent()

    def rebuild(self, x: Tensor, noise: Tensor | None) -> Tensor:
        """See :meth:`Purifier.rebuild`; without gradients in ``x``, and images seen lately are not searched again."""
        return self._recent(self._search, x.detach(), self.pixelcnn)

    def _search(self, x: Tensor) -> Tensor:
        purified = purify(self.pixelcnn, x, self.eps_defend)
        return likelier(self.pixelcnn, x, purified) if self.only_likelier else purified

    def differentiable(self, x: Tensor, noise: Tensor | None) -> Tensor:
        """:meth:`rebuild` going forward, the identity going backward."""
        return backward_pass(lambda images: self.rebuild(images, noise), x)

    def respond(self, x: Tensor, purified: Tensor) -> DefenseOutput:
        """See :meth:`Purifier.respond`; the risk is the input's bits a dimension."""
        return DefenseOutput(self.head(purified), self.bits(x), purified)

    def bits(self, x: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 1] -> negative log-likelihood (B,), bits a pixel and channel."""
        with torch.autocast(x.device.type, enabled=False):
            return bits_per_dimension(self.pixelcnn(x.float()), x[0].numel())

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Negative log-likelihood of clean images, bits a dimension."""
        return {"bits": bits_per_dimension(self.pixelcnn(batch.x), batch.x[0].numel()).mean()}

    def purifier_stages(self) -> list[Stage]:
        """One fit of the network on clean images, independent of the classifier."""
        takes = ("pixelcnn", "average", "training")
        options = {"uses": (), "validate": self.likelihood_metrics, "average": self.average}
        return [self.fit_stage("pixelcnn", ("pixelcnn",), takes, **options)]

    def likelihood_metrics(self, batch: Batch) -> dict[str, Tensor]:
        """Bits a dimension (B,) of held-out images; purifying them after every epoch would cost too much."""
        return {"bits": self.bits(batch.x)}

    @torch.no_grad()
    def diagnostics(self, batch: Batch) -> dict[str, Tensor]:
        """The base's, and by how many bits a dimension (B,) purification makes clean images likelier."""
        gained = self.bits(batch.x) - self.bits(self.purify(batch.x))
        return {**super().diagnostics(batch), "bits_gained": gained}
