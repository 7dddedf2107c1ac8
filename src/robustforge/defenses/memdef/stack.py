"""The network of Memory Defense: encoder, masked memory, decoder, classifier-B."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from robustforge.defenses.choices import one_of
from robustforge.defenses.memdef.memory import MaskedMemory
from robustforge.defenses.memdef.networks import TargetClassifier, decoder, encoder

PARTS = ("full", "no_memory", "classifier")


@dataclass(frozen=True)
class StackOutput:
    """What the stack makes of a batch.

    Attributes:
        logits: (B, K) of classifier-B on the rebuilt image.
        rebuilt: (B, C, H, W) reconstruction; in pixel units, not clipped.
        weights: (B, N) address over memory rows, summing to 1, or None without memory.
        other: (B, C, H, W) reconstruction from the rows of all other slots, when asked for.
        other_weights: (B, N) its address.
    """

    logits: Tensor
    rebuilt: Tensor
    weights: Tensor | None = None
    other: Tensor | None = None
    other_weights: Tensor | None = None


class MemoryStack(nn.Module):
    """Rebuilds an image from one class's memory rows and classifies the result (systems of Eqs. 8 to 12).

    Args:
        shape: (C, H, W).
        num_classes: K.
        memory_size: N rows, K times a whole number.
        temperature: divides the cosines before the softmax (paper: 1).
        shrink: ``none`` (released code in effect), ``hard`` or ``memae``.
        threshold: of the shrinkage; None takes the mode's default.
        reading: ``b`` or ``c``, how Table 4's CIFAR-10 column is read.
        first_kernel: of the first convolution for one-channel images (paper: 1, which skips three pixels in four).
        sigmoid: bound the reconstruction to [0, 1] (paper: linear).
        dropout: of classifier-B (released code: 0.5).
        part: ``full``, or an ablation of Table 5: ``no_memory`` (auto-encoder and classifier-B) or ``classifier``
            (classifier-B alone).

    Raises:
        UserError: unknown part, or a memory that cannot be shared out evenly.
    """

    def __init__(
        self,
        shape: Sequence[int],
        num_classes: int,
        memory_size: int = 500,
        temperature: float = 1.0,
        shrink: str = "none",
        threshold: float | None = None,
        reading: str = "b",
        first_kernel: int = 1,
        sigmoid: bool = False,
        dropout: float = 0.5,
        part: str = "full",
    ) -> None:
        super().__init__()
        one_of("The stack's part", part, PARTS)
        self.part = part
        self.classifier_b = TargetClassifier(shape, num_classes, dropout=dropout)
        if part == "classifier":
            return
        self.encoder = encoder(shape, reading, first_kernel)
        self.decoder = decoder(shape, reading, sigmoid)
        if part == "full":
            self.memory = MaskedMemory(memory_size, self.encoder.dim, num_classes, temperature, shrink, threshold)

    def forward(self, x: Tensor, slots: Tensor, noise: Tensor | None = None, others: bool = False) -> StackOutput:
        """Classifies a batch.

        Args:
            x: (B, C, H, W) in [0, 1].
            slots: (B,) int64 classes whose rows are open, or (B, K) soft weights.
            noise: added to the encoder's input, or None.
            others: also rebuild from all other slots (training only).
        """
        if self.part == "classifier":
            return StackOutput(self.classifier_b(x), x)
        latent = self.encoder(x if noise is None else x + noise)
        if self.part == "no_memory":
            rebuilt = self.decoder(latent)
            return StackOutput(self.classifier_b(rebuilt), rebuilt)
        read = self.memory(latent, slots)
        rebuilt = self.decoder(read.target)
        if not others:
            return StackOutput(self.classifier_b(rebuilt), rebuilt, read.weights)
        rest = self.memory.non_target(latent, slots)
        return StackOutput(self.classifier_b(rebuilt), rebuilt, read.weights, self.decoder(rest.target), rest.weights)
