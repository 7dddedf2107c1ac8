"""Memory Defense as a LightningModule: which networks, which stages, which losses."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from robustforge.attacks.core.surface import Surface
from robustforge.defenses.base import Defense, classify
from robustforge.defenses.memdef.losses import memory_defense_terms
from robustforge.defenses.memdef.settings import SelectorSettings, StackSettings
from robustforge.defenses.memdef.stack import MemoryStack, StackOutput
from robustforge.defenses.memdef.surfaces import memdef_surfaces
from robustforge.defenses.robust_loss import robust_metrics
from robustforge.defenses.stages import Factory, FitStage, Stage, Training, build_seeded
from robustforge.defenses.undefended import offline_stage, plain_stage
from robustforge.types import Batch, DefenseOutput, UserError

_OF_STACK = (
    "stack",
    "shape",
    "num_classes",
    "memory_size",
    "temperature",
    "shrink",
    "threshold",
    "reading",
    "first_kernel",
    "sigmoid",
    "dropout",
)
_OF_SURFACE = ("surface_temperature", "selector_weight")  # of the stack that is trained on attacks
VARIANTS = ("full", "no_memory", "classifier", "selector", "oracle_slot", "random_slot")


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
        The slot is classifier-A's argmax, as in the paper. Training opens it by the true label (paper) or by
        classifier-A, see :class:`StackSettings`. The joint cross-entropy term that Eq. 13 omits is included.
    """

    evaluation_only = ("variant", "selector", *_OF_SURFACE)

    def __init__(
        self,
        model: Factory,
        selector: SelectorSettings,
        stack: StackSettings,
        undefended_training: Training,
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
        surface_temperature: float = 1.0,
        selector_weight: float = 1.0,
        variant: str = "full",
        seed: int = 0,
    ) -> None:
        super().__init__(seed=seed)
        if variant not in VARIANTS:
            raise UserError(f"defense.variant is '{variant}': choose one of {', '.join(VARIANTS)}.")
        self.num_classes, self.variant = num_classes, variant
        self.selector_settings, self.stack_settings = selector, stack
        self.undefended_training = undefended_training
        self.surface_temperature, self.selector_weight = surface_temperature, selector_weight
        self.stack_description = {
            "memory_size": memory_size,
            "temperature": temperature,
            "shrink": shrink,
            "threshold": threshold,
            "reading": reading,
            "first_kernel": first_kernel,
            "sigmoid": sigmoid,
            "dropout": dropout,
            "part": variant if variant in ("no_memory", "classifier") else "full",
        }
        self.undefended = build_seeded(model, seed, "undefended")
        # the paper's "ben" selector is classifier-A as trained clean: the same network, not a copy
        self.selector = self.undefended if selector.kind == "clean" else build_seeded(model, seed, "selector")
        self.stack = build_seeded(lambda: MemoryStack(shape, num_classes, **self.stack_description), seed, "stack")

    # ---- inference --------------------------------------------------------------------------------------------------

    def forward(self, x: Tensor) -> DefenseOutput:
        """(B, C, H, W) in [0, 1] -> logits (B, K), risk = mean squared reconstruction error (B,), rebuilt image."""
        return self.respond(x, None)

    def respond(self, x: Tensor, y: Tensor | None) -> DefenseOutput:
        """The deployed system; ``y`` is used by the variant ``oracle_slot`` alone."""
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
        return self.selector(x).argmax(1)

    def surfaces(self) -> dict[str, Surface]:
        """``end_to_end``, ``slot_given``, ``selector``, ``soft_slot`` and ``transfer``: see the module of that name."""
        return memdef_surfaces(self, self.variant)

    def systems(self) -> dict[str, dict[str, Surface]]:
        """The undefended classifier-A and the selector alone, beside the defense."""
        rows = {"undefended": classify(self.undefended)}
        return rows if self.selector_settings.kind == "clean" else {**rows, "selector": classify(self.selector)}

    # ---- training ---------------------------------------------------------------------------------------------------

    def stages(self) -> list[Stage]:
        """Clean classifier-A, its robust copy (with a static adversarial set for ``offline``), the stack."""
        stages: list[Stage] = [plain_stage(self)]
        stages += self._selector_stages()
        if self.variant != "selector":
            stages.append(self._stack_stage())
        return stages

    def _stack_stage(self) -> FitStage:
        chosen = self.stack_settings
        needs_selector = chosen.attack is not None or chosen.slot == "selector"
        return FitStage(
            "stack",
            ("stack",),
            self.stack_losses,
            chosen.training,
            {"part": self.stack.part},
            ("undefended" if self.selector_settings.kind == "clean" else "selector",) if needs_selector else (),
            validate=self.stack_metrics,
            takes=_OF_STACK + (_OF_SURFACE if needs_selector else ()),
        )

    def _selector_stages(self) -> list[Stage]:
        chosen = self.selector_settings
        if chosen.kind == "clean":
            return []
        if chosen.kind == "pgd":
            return [self._selector_fit(("undefended",), None)]
        craft = offline_stage(self, chosen.attack, chosen.threat, ("selector",))
        return [craft, self._selector_fit(("undefended", "adversarial_set"), "adversarial_set")]

    def _selector_fit(self, uses: tuple[str, ...], adversarial_set: str | None) -> FitStage:
        return FitStage(
            "selector",
            ("selector",),
            self.selector_losses,
            self.selector_settings.training,
            uses=uses,
            adversarial_set=adversarial_set,
            validate=self.selector_metrics,
            prepare=self._copy_selector,
            takes=("model", "selector"),
        )

    def _copy_selector(self) -> None:
        self.selector.load_state_dict(self.undefended.state_dict())

    def selector_losses(self, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy on the 50/50 union (``offline``), or the min-max loss (``pgd``)."""
        if self.selector_settings.kind == "pgd":
            return self.selector_settings.robust.terms(self.selector, batch, self.attack_seed())
        assert batch.x_adv is not None, "the offline selector trains on pairs of clean and stored images"
        clean, attacked = self.selector(torch.cat([batch.x, batch.x_adv])).chunk(2)
        return {
            "clean": 0.5 * F.cross_entropy(clean, batch.y),
            "adversarial": 0.5 * F.cross_entropy(attacked, batch.y),
        }

    def selector_metrics(self, batch: Batch) -> dict[str, Tensor]:
        """Held-out clean accuracy, and accuracy under the training attack made afresh on these weights."""
        return robust_metrics(self.selector, batch, self.selector_settings.robust, self.seed)

    def stack_losses(self, batch: Batch) -> dict[str, Tensor]:
        """Eq. 13 with the joint cross-entropy, on clean images and, where there is an attack, on attacked ones."""
        chosen = self.stack_settings
        warming_up = self.current_epoch < chosen.attack_warmup * chosen.training.epochs
        if chosen.attack is None or chosen.threat is None or warming_up:
            return self._stack_terms(batch.x, batch, 1.0)
        # the bounds share the full variant's stack in the store, so that it must be trained the same way
        surfaces = memdef_surfaces(self, "full" if self.stack.part == "full" else self.variant)
        surface = surfaces.get("soft_slot", surfaces["end_to_end"])
        x_adv = chosen.attack(
            surface, batch.x, batch.y, chosen.threat, index=batch.index, seed=self.attack_seed()
        ).x_adv
        attacked = self._stack_terms(x_adv, batch, 1 - chosen.clean_weight)
        if chosen.clean_weight == 0:
            return attacked
        clean = self._stack_terms(batch.x, batch, chosen.clean_weight)
        return {**{f"clean_{k}": v for k, v in clean.items()}, **{f"attacked_{k}": v for k, v in attacked.items()}}

    def _stack_terms(self, x: Tensor, batch: Batch, weight: float) -> dict[str, Tensor]:
        chosen = self.stack_settings
        noise = chosen.noise * torch.randn_like(x) if chosen.noise else None
        output: StackOutput = self.stack(x, self.training_slots(x, batch.y), noise, others=chosen.beta > 0)
        terms = memory_defense_terms(
            output.logits,
            output.rebuilt,
            output.weights,
            output.other,
            output.other_weights,
            batch.x,
            batch.y,
            alpha=chosen.alpha,
            beta=chosen.beta,
            gamma=chosen.gamma,
            num_classes=self.num_classes,
        )
        return {name: weight * term for name, term in terms.items()}

    def training_slots(self, x: Tensor, y: Tensor) -> Tensor:
        """(B,) slot opened in training: the settings' source, a share of them replaced by a random class."""
        slots = y
        if self.stack_settings.slot == "selector":
            with torch.no_grad():
                slots = self.selector(x).argmax(1)
        if self.stack_settings.wrong_slot:
            replaced = torch.rand(len(y), device=y.device) < self.stack_settings.wrong_slot
            slots = torch.where(replaced, torch.randint_like(y, self.num_classes), slots)
        return slots

    def stack_metrics(self, batch: Batch) -> dict[str, Tensor]:
        """Held-out accuracy of the deployed system and the wrong-slot diagnostic."""
        with torch.no_grad():
            correct = self.respond(batch.x, batch.y).logits.argmax(1) == batch.y
            return {"accuracy": correct.float(), **self.diagnostics(batch)}

    @torch.no_grad()
    def diagnostics(self, batch: Batch) -> dict[str, Tensor]:
        """What the stack does with a slot (systems of its training: does it correct the selector, or repeat it?).

        Returns:
            (B,) each: ``agreement`` of the final label with classifier-A; with a wrong slot opened on purpose,
            ``wrong_slot_followed`` (the answer is the slot's class) and ``wrong_slot_recovered`` (the true class);
            ``true_slot_accuracy`` with the label's slot; ``reconstruction_error``, mean squared, pixel units.
        """
        if self.variant in ("selector", "no_memory", "classifier"):
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
