"""Memory Defense as deployed: a selector opens a slot, the stack answers; and what the stack does with a slot."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from robustforge.defenses.memdef.stack import MemoryStack
from robustforge.types import Batch, DefenseOutput

VARIANTS = ("full", "no_memory", "classifier", "selector", "oracle_slot", "random_slot")
WITHOUT_SLOT = ("selector", "no_memory", "classifier")


@dataclass(frozen=True)
class MemorySystem:
    """The deployed networks and their answer.

    Attributes:
        selector: (B, C, H, W) -> (B, K), classifier-A.
        stack: encoder, memory, decoder and classifier-B.
        variant: one of :data:`VARIANTS`.
        num_classes: K.
    """

    selector: nn.Module
    stack: MemoryStack
    variant: str
    num_classes: int

    def respond(self, x: Tensor, y: Tensor | None) -> DefenseOutput:
        """The answer to images (B, C, H, W); ``y`` (B,) is used by the variant ``oracle_slot`` alone."""
        if self.variant == "selector":
            return DefenseOutput(self.selector(x))
        output = self.stack(x, self.slots(x, y))
        risk = (output.rebuilt - x).square().flatten(1).mean(1)
        return DefenseOutput(output.logits, risk, output.rebuilt)

    def slots(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """(B,) class whose slot is opened: classifier-A's answer, or what the variant says."""
        if self.variant == "oracle_slot" and y is not None:
            return y
        if self.variant == "random_slot":
            # a fixed pseudo-random function of the image, so that asking twice gives the same answer
            return (x.detach().float().flatten(1).sum(1) * 8191).long().remainder(self.num_classes)
        selected: Tensor = self.selector(x).argmax(1)
        return selected

    def slot_numbers(self, batch: Batch) -> dict[str, Tensor]:
        """What the stack does with a slot (systems of its training: does it correct the selector, or repeat it?).

        Returns:
            (B,) each: ``agreement`` of the final label with classifier-A; with a wrong slot opened on purpose,
            ``wrong_slot_followed`` (the answer is the slot's class) and ``wrong_slot_recovered`` (the true class);
            ``true_slot_accuracy`` with the label's slot; ``reconstruction_error``, mean squared, pixel units.
        """
        if self.variant in WITHOUT_SLOT:
            return {}
        wrong = (batch.y + 1 + batch.index % (self.num_classes - 1)) % self.num_classes
        with_wrong = self.stack(batch.x, wrong).logits.argmax(1)
        with_true = self.stack(batch.x, batch.y).logits.argmax(1)
        selected = self.selector(batch.x).argmax(1)
        output = self.stack(batch.x, selected)
        return {
            "agreement": (output.logits.argmax(1) == selected).float(),
            "wrong_slot_followed": (with_wrong == wrong).float(),
            "wrong_slot_recovered": (with_wrong == batch.y).float(),
            "true_slot_accuracy": (with_true == batch.y).float(),
            "reconstruction_error": (output.rebuilt - batch.x).square().flatten(1).mean(1),
        }
