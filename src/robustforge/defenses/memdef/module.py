"""Memory Defense as a LightningModule: which networks, which stages, which losses."""

from __future__ import annotations

import inspect
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from robustforge.attacks.core.surface import Surface
from robustforge.defenses.base import Defense, classify
from robustforge.defenses.choices import one_of
from robustforge.defenses.figures import Figure
from robustforge.defenses.memdef.figures import memdef_figures
from robustforge.defenses.memdef.objective import attacked_stack_terms, selector_terms, stack_terms
from robustforge.defenses.memdef.settings import SelectorSettings, StackSettings
from robustforge.defenses.memdef.stack import MemoryStack
from robustforge.defenses.memdef.surfaces import memdef_surfaces
from robustforge.defenses.memdef.system import VARIANTS, MemorySystem
from robustforge.defenses.robust_loss import robust_metrics
from robustforge.defenses.stages import CraftStage, Factory, FitStage, Stage, Training, build_seeded
from robustforge.defenses.undefended import offline_stage, plain_stage
from robustforge.ranges import Classes, NonNegativeFloat, PositiveFloat, PositiveInt, Seed, Shape, ShareBelowOne
from robustforge.types import Batch, DefenseOutput

_OF_NETWORK = tuple(name for name in inspect.signature(MemoryStack).parameters if name != "part")
_OF_STACK: tuple[str, ...] = ("stack", *_OF_NETWORK)
_OF_SURFACE = ("surface_temperature", "selector_weight")  # of the stack that is trained on attacks


class MemoryDefense(Defense):
    """A selector opens one class's memory slot; the image is rebuilt from it and classified.

    Args:
        model: factory of classifier-A (paper: ResNet-50).
        selector: how its robust copy is trained.
        stack: how encoder, memory, decoder and classifier-B are trained.
        undefended_training: optimization of the clean classifier-A.
        shape: (C, H, W) of the images.
        num_classes: K.
        memory_size: N rows, shared out evenly over the classes.
        temperature, shrink, threshold, reading, first_kernel, sigmoid, dropout: see :class:`MemoryStack`.
        surface_temperature: T of the soft-slot surface's softmax(A(x)/T).
        selector_weight: lambda, weight of classifier-A's own loss in the soft-slot surface.
        variant: ``full``; or Table 5's rows ``classifier``, ``no_memory``, ``selector``; or the bounds ``oracle_slot``
            (the true label opens the slot) and ``random_slot``.
        seed: of initial weights, batches and attacks.

    Notes:
        The slot is classifier-A's argmax, as in the paper; :class:`StackSettings` says who opens it in training.
    """

    evaluation_only = ("variant", "selector", *_OF_SURFACE)

    def __init__(
        self,
        model: Factory,
        selector: SelectorSettings,
        stack: StackSettings,
        undefended_training: Training,
        shape: Shape,
        num_classes: Classes,
        memory_size: PositiveInt = 500,
        temperature: PositiveFloat = 1.0,
        shrink: Literal["none", "hard", "memae"] = "none",
        threshold: NonNegativeFloat | None = None,
        reading: Literal["b", "c"] = "b",
        first_kernel: PositiveInt = 1,
        sigmoid: bool = False,
        dropout: ShareBelowOne = 0.5,
        surface_temperature: PositiveFloat = 1.0,
        selector_weight: NonNegativeFloat = 1.0,
        variant: Literal["full", "no_memory", "classifier", "selector", "oracle_slot", "random_slot"] = "full",
        seed: Seed = 0,
    ) -> None:
        super().__init__(seed=seed)
        one_of("defense.variant", variant, VARIANTS)
        self.num_classes, self.variant = num_classes, variant
        self.selector_settings, self.stack_settings = selector, stack
        self.undefended_training = undefended_training
        self.surface_temperature, self.selector_weight = surface_temperature, selector_weight
        self.undefended = build_seeded(model, seed, "undefended")
        # the paper's "ben" selector is classifier-A as trained clean: the same network, not a copy
        self.selector = self.undefended if selector.kind == "clean" else build_seeded(model, seed, "selector")
        part = variant if variant in ("no_memory", "classifier") else "full"
        options = {name: self.arguments[name] for name in _OF_NETWORK}
        self.stack = build_seeded(lambda: MemoryStack(**options, part=part), seed, "stack")

    @property
    def system(self) -> MemorySystem:
        """The networks with their answer."""
        return MemorySystem(self.selector, self.stack, self.variant, self.num_classes)

    def forward(self, x: Tensor) -> DefenseOutput:
        """(B, C, H, W) in [0, 1] -> logits (B, K), risk = mean squared reconstruction error (B,), rebuilt image."""
        return self.system.respond(x, None)

    def surfaces(self, variant: str | None = None) -> dict[str, Surface]:
        """Those of its own variant, or of another one with the same networks: see the module of that name."""
        temperature, weight = self.surface_temperature, self.selector_weight
        return memdef_surfaces(self, self.system, self.undefended, temperature, weight, variant or self.variant)

    def systems(self) -> dict[str, dict[str, Surface]]:
        """The undefended classifier-A and the selector alone, beside the defense."""
        rows = {"undefended": classify(self.undefended)}
        return rows if self.selector_settings.kind == "clean" else {**rows, "selector": classify(self.selector)}

    def figures(self) -> dict[str, Figure]:
        """Its latents without and with memory: see the module of that name."""
        return memdef_figures(self.system)

    def stages(self) -> list[Stage]:
        """Clean classifier-A, its robust copy (with a static adversarial set for ``offline``), the stack."""
        stages: list[Stage] = [plain_stage(self), *self._selector_stages()]
        return stages if self.variant == "selector" else [*stages, self._stack_stage()]

    def _stack_stage(self) -> FitStage:
        chosen, takes = self.stack_settings, _OF_STACK
        uses: tuple[str, ...] = ()
        if chosen.attack is not None or chosen.slot == "selector":
            uses = ("undefended" if self.selector_settings.kind == "clean" else "selector",)
            takes += _OF_SURFACE
        part, validate, training = {"part": self.stack.part}, self.stack_metrics, chosen.training
        stage = FitStage("stack", ("stack",), self.stack_losses, training, part, uses, validate=validate, takes=takes)
        return replace(stage, erasing=False)  # random erasing is classifier-A's alone (paper, Sec. 4)

    def _selector_stages(self) -> list[Stage]:
        chosen = self.selector_settings
        craft: list[CraftStage] = []
        if chosen.kind == "clean":
            return []
        if chosen.kind == "offline":
            craft = [offline_stage(self, chosen.attack, chosen.threat, ("selector",))]
        fit = FitStage(
            "selector",
            ("selector",),
            self.selector_losses,
            chosen.training,
            uses=("undefended", *(stage.name for stage in craft)),
            adversarial_set=craft[0].name if craft else None,
            validate=self.selector_metrics,
            prepare=self._copy_selector,
            best=chosen.best,
            takes=("model", "selector"),
        )
        return [*craft, fit]

    def _copy_selector(self) -> None:
        self.selector.load_state_dict(self.undefended.state_dict())

    def selector_losses(self, batch: Batch) -> dict[str, Tensor]:
        """See :func:`selector_terms`."""
        return selector_terms(self.selector, self.undefended, self.selector_settings, batch, self.attack_seed())

    def selector_metrics(self, batch: Batch) -> dict[str, Tensor]:
        """Held-out clean accuracy, and accuracy under the training attack made afresh on these weights."""
        return robust_metrics(self.selector, batch, self.selector_settings.robust, self.seed)

    def stack_losses(self, batch: Batch) -> dict[str, Tensor]:
        """Eq. 13 with the joint cross-entropy, on clean images and, where there is an attack, on attacked ones."""
        chosen = self.stack_settings
        if chosen.attack is None or self.current_epoch < chosen.attack_warmup * chosen.training.epochs:
            return stack_terms(self.system, chosen, batch.x, batch)
        # the bounds share the full variant's stack in the store, so that it must be trained the same way
        surfaces = self.surfaces("full" if self.stack.part == "full" else None)
        surface = surfaces.get("soft_slot", surfaces["end_to_end"])
        return attacked_stack_terms(self.system, chosen, surface, batch, self.attack_seed())

    @torch.no_grad()
    def stack_metrics(self, batch: Batch) -> dict[str, Tensor]:
        """Held-out accuracy of the deployed system and the wrong-slot diagnostic."""
        correct = self.system.respond(batch.x, batch.y).logits.argmax(1) == batch.y
        return {"accuracy": correct.float(), **self.diagnostics(batch)}

    @torch.no_grad()
    def diagnostics(self, batch: Batch) -> dict[str, Tensor]:
        """See :meth:`MemorySystem.slot_numbers`."""
        return self.system.slot_numbers(batch)
