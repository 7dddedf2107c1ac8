"""The base of every defense: a LightningModule that runs the stages which its subclass declares."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Self

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from robustforge.attacks.core.surface import Surface, end_to_end
from robustforge.defenses.figures import Figure
from robustforge.defenses.single_step import overfitting
from robustforge.defenses.stages import FitStage, Stage, Training, derive_seed, seed_everywhere
from robustforge.types import Batch, DefenseOutput, DivergedError

log = logging.getLogger(__name__)
LARGEST = float(torch.finfo(torch.float32).max) ** 0.5


class Defense(pl.LightningModule):
    """A defense against adversarial examples.

    A subclass writes ``__init__`` (plain values, factories of networks), ``forward(x) -> DefenseOutput`` and either
    ``losses(batch)`` (one stage that trains everything) or ``stages()``. It may add ``surfaces()``, ``systems()``,
    ``figures()`` and ``diagnostics()``.

    Args:
        seed: of initial weights and of every random draw in training.
        training: how the single default stage is optimized; None for subclasses that write ``stages()``.

    Attributes:
        evaluation_only: names of constructor arguments that no stage depends on unless it names them in ``takes``. All
            others are part of the keys under which products are stored.
        arguments: the constructor's arguments by name, defaults included.
        undefended_given: hash of the weights of the undefended classifier where it was trained elsewhere, see
            :func:`robustforge.defenses.undefended.take_undefended`.
    """

    evaluation_only: ClassVar[tuple[str, ...]] = ()
    arguments: dict[str, Any]
    undefended_given: str | None = None

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Notes the constructor's arguments, whatever the subclass calls them: products are kept under them."""
        made = super().__new__(cls)
        made.__dict__["arguments"] = bound_arguments(cls.__init__, made, *args, **kwargs)
        return made

    def __init__(self, *, seed: int = 0, training: Training | None = None) -> None:
        super().__init__()
        self.seed = seed
        self.training_settings = training
        self.stage: FitStage | None = None
        self._noted: dict[str, Tensor] = {}
        self._previous: tuple[int, dict[str, Tensor]] | None = None  # step and loss terms

    # ---- what a subclass writes -------------------------------------------------------------------------------------

    def forward(self, x: Tensor) -> DefenseOutput:
        """Answers images in [0, 1], (B, C, H, W)."""
        raise NotImplementedError(f"{type(self).__name__} must define forward(x) -> DefenseOutput.")

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Weighted loss terms of the default stage, each a scalar."""
        raise NotImplementedError(f"{type(self).__name__} must define losses(batch) or stages().")

    def stages(self) -> list[Stage]:
        """The stages in order; by default one fit of every submodule on :meth:`losses`."""
        if self.training_settings is None:
            raise ValueError(f"{type(self).__name__} was given no training settings and declares no stages.")
        trains = tuple(name for name, _ in self.named_children())
        return [FitStage("fit", trains, self.losses, self.training_settings, validate=self.validate)]

    def built_on(self) -> Sequence[Defense]:
        """Defenses whose stages are run, or found in the store, before its own; no two stages may have one name."""
        return ()

    def classifier_network(self) -> nn.Module | None:
        """The network (B, C, H, W) -> logits (B, K) that is the whole answer, or None where the answer takes more."""
        return None

    def surfaces(self) -> dict[str, Surface]:
        """What an attacker may differentiate, by name; ``end_to_end`` is the whole system by plain autodiff."""
        return {"end_to_end": end_to_end(self, self)}

    def systems(self) -> dict[str, dict[str, Surface]]:
        """Other systems shown beside the defense in its tables: row name -> its surfaces."""
        return {}

    def diagnostics(self, batch: Batch) -> dict[str, Tensor]:
        """Per-sample numbers (B,) that explain the defense, averaged over the evaluated images into the result."""
        return {}

    def figures(self) -> dict[str, Figure]:
        """Pictures that only this defense has, by file name; every defense has a gallery besides."""
        return {}

    def describe(self) -> dict[str, Any]:
        """What it is made of, for keys: the constructor's arguments."""
        return self.arguments

    # ---- what the base does -----------------------------------------------------------------------------------------

    def validate(self, batch: Batch) -> dict[str, Tensor]:
        """Per-sample metrics (B,) on held-out images after each epoch."""
        return {"accuracy": (self(batch.x).logits.argmax(1) == batch.y).float()}

    def enter(self, stage: FitStage) -> None:
        """Makes ``stage`` the one that Lightning's hooks run: its modules train, all others are frozen."""
        self.stage = stage
        # channels-last is the faster layout of convolutions on GPUs and on most CPUs; attacks hand in the same layout
        self.to(memory_format=torch.channels_last)
        self.eval().requires_grad_(False)
        for name in stage.trains:
            getattr(self, name).train().requires_grad_(True)

    def leave(self) -> None:
        """Ends the stage: everything frozen and in eval mode."""
        self.stage = None
        self.to(memory_format=torch.channels_last)
        self.eval().requires_grad_(False)

    @property
    def active_stage(self) -> FitStage:
        """The stage under way."""
        if self.stage is None:
            raise RuntimeError("No stage is active: call enter(stage) before Trainer.fit.")
        return self.stage

    def attack_seed(self) -> int:
        """Seed of the attacks inside training: another one each epoch, the same after a resume."""
        return derive_seed(self.seed, self.active_stage.name, "attack", self.current_epoch)

    def configure_optimizers(self) -> Any:
        """The stage's optimizer and its schedule, applied every step."""
        settings = self.active_stage.training
        rates = self.active_stage.rates
        groups: dict[float, list[nn.Parameter]] = {}
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                rate = next((rate for prefix, rate in rates.items() if name.startswith(f"{prefix}.")), 1.0)
                groups.setdefault(rate, []).append(parameter)
        optimizer = settings.optimizer([{"params": parameters} for parameters in groups.values()])
        for group, rate in zip(optimizer.param_groups, groups, strict=True):
            group["lr"] *= rate
        total = max(1, int(self.trainer.estimated_stepping_batches))
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda done: settings.schedule(min(1.0, done / total)))
        name = f"{self.active_stage.name}/learning_rate"  # LearningRateMonitor logs it so
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step", "name": name}}

    def on_train_epoch_start(self) -> None:
        """Reseeds dropout and noise by epoch and rank, so that a resumed run draws what the unbroken one would have."""
        seed_everywhere(derive_seed(self.seed, self.active_stage.name, self.current_epoch, self.global_rank))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Sums and logs the stage's loss terms."""
        stage = self.active_stage
        terms = stage.losses(batch)
        loss = torch.stack([term.float() for term in terms.values()]).sum()
        self._stop_if_diverged()
        self._previous = batch_idx, {name: term.detach() for name, term in terms.items()}
        figures = {**terms, "loss": loss, **self._noted}
        self._noted = {}
        logged = {f"{stage.name}/train/{name}": value.detach() for name, value in figures.items()}
        self.log_dict(logged, on_step=False, on_epoch=True, sync_dist=True, batch_size=len(batch.y))
        self.log("loss", loss.detach(), prog_bar=True, logger=False, batch_size=len(batch.y))
        return loss

    def on_train_epoch_end(self) -> None:
        """The last step's loss terms are looked at too."""
        self._stop_if_diverged()

    def _stop_if_diverged(self) -> None:
        """Looks at the previous step's terms; a GPU is waited for, which costs what is left of the pass under way."""
        if self._previous is None:
            return
        (step, terms), self._previous = self._previous, None
        if not in_range(torch.stack([term.float() for term in terms.values()])):
            bad = ", ".join(name for name, term in terms.items() if not in_range(term))
            raise DivergedError(
                f"Training diverged in stage {self.active_stage.name}, epoch {self.current_epoch}, step {step}: the "
                f"loss term {bad} is NaN, infinite or beyond {LARGEST:.0e}. Nothing was stored; the last good epoch is "
                "kept. Lower the learning rate (optimizer.lr) or clip gradients."
            )

    def on_validation_epoch_end(self) -> None:
        """Says when training on a single step has overfitted it."""
        if self.trainer.sanity_checking:
            return
        prefix = f"{self.active_stage.name}/val/"
        metrics = {name.removeprefix(prefix): float(value) for name, value in self.trainer.callback_metrics.items()}
        found = overfitting(metrics)
        if found is not None:
            log.warning("%s, epoch %d: %s", self.active_stage.name, self.current_epoch, found)

    def note(self, **figures: Tensor) -> None:
        """Scalars of the training step under way that are logged beside its loss without being part of it."""
        self._noted = {name: value.detach() for name, value in figures.items()}

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Logs the stage's held-out metrics."""
        stage = self.active_stage
        if stage.validate is None:
            return
        metrics = {f"{stage.name}/val/{name}": value.float().mean() for name, value in stage.validate(batch).items()}
        self.log_dict(metrics, on_epoch=True, sync_dist=True, batch_size=len(batch.y))


def in_range(values: Tensor) -> bool:
    """Whether all values are numbers whose squares are finite in float32: training beyond that has diverged."""
    return bool((values.abs() <= LARGEST).all())  # NaN is not


def bound_arguments(function: Callable[..., Any], owner: object, *args: Any, **kwargs: Any) -> dict[str, Any]:
    """The arguments of a call of ``function(owner, ...)`` by name, defaults included, ``**others`` among them."""
    bound = inspect.signature(function).bind_partial(owner, *args, **kwargs)
    bound.apply_defaults()
    found: dict[str, Any] = {}
    for name, value in list(bound.arguments.items())[1:]:
        gathers = bound.signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD
        found.update(value if gathers else {name: value})
    return found


def classify(network: nn.Module) -> dict[str, Surface]:
    """Surfaces of a plain classifier (B, C, H, W) -> (B, K), for rows that are compared with a defense."""
    return {"end_to_end": end_to_end(lambda x: DefenseOutput(network(x)), network)}
