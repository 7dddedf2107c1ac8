"""Which weights a stage ends with: the last ones, those of its best epoch, or a running average of all steps."""

from __future__ import annotations

import logging
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from torch import Tensor

log = logging.getLogger(__name__)
State = dict[str, Tensor]


class FinalWeights(Callback):
    """Averages weights over steps, keeps those of the best epoch, and leaves the stage's modules with the outcome.

    Validation sees the averaged weights, so that the best epoch is chosen among what could be kept. Both survive a
    resume: they are in the checkpoint.

    Args:
        stage: its name, the first part of logged names.
        modules: attribute names of the defense's submodules that the stage trains.
        best: held-out metric whose highest epoch is kept (of equals the latest), or None for the last epoch.
        average: decay of the running average, in (0, 1), or None for none.
    """

    def __init__(self, stage: str, modules: tuple[str, ...], best: str | None, average: float | None) -> None:
        self.stage, self.modules, self.metric, self.decay = stage, modules, best, average
        self.score = float("-inf")
        self.best: State = {}
        self.average: State = {}
        self._live: State = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The average starts at the initial weights."""
        if self.decay is not None and not self.average:
            self.average = self._copy(pl_module)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Moves the average toward the new weights; faster in the first steps, which are far from any optimum."""
        if self.decay is None:
            return
        decay = min(self.decay, (1 + trainer.global_step) / (10 + trainer.global_step))
        for name, value in self._state(pl_module).items():
            kept = self.average[name] = self.average[name].to(value.device)
            if value.is_floating_point():
                kept.lerp_(value.detach(), 1 - decay)
            else:
                kept.copy_(value)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Puts the average in place."""
        if self.average:
            self._live = self._copy(pl_module)
            self._load(pl_module, self.average)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keeps the weights if they are the best so far, and puts the trained ones back."""
        value = trainer.callback_metrics.get(f"{self.stage}/val/{self.metric}")
        if value is not None and float(value) >= self.score:
            self.score, self.best = float(value), self._copy(pl_module)
        if self._live:
            self._load(pl_module, self._live)
            self._live = {}

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leaves the modules with the outcome."""
        if self.metric is not None and not self.best:
            log.warning("%s: there are no held-out images to choose an epoch by, so the last one is kept", self.stage)
        final = self.best or self.average
        if final:
            self._load(pl_module, final)

    def state_dict(self) -> dict[str, Any]:
        """What a resume needs."""
        return {"score": self.score, "best": self.best, "average": self.average}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes it back."""
        self.score, self.best, self.average = state_dict["score"], state_dict["best"], state_dict["average"]

    def _state(self, owner: pl.LightningModule) -> State:
        return {
            f"{module}.{name}": value
            for module in self.modules
            for name, value in getattr(owner, module).state_dict().items()
        }

    def _copy(self, owner: pl.LightningModule) -> State:
        return {name: value.detach().clone() for name, value in self._state(owner).items()}

    def _load(self, owner: pl.LightningModule, state: State) -> None:
        for name, value in self._state(owner).items():
            value.copy_(state[name])  # state_dict's tensors are the modules' own
