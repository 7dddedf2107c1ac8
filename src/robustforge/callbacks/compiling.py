"""``torch.compile`` for the networks of a stage while it is fitted."""

from __future__ import annotations

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn

from robustforge.defenses.base import Defense


class CompileNetworks(Callback):
    """Runs calls of the stage's networks, and so the attacks inside training, through ``torch.compile``.

    Weights, their names and what is stored stay as they are; answers differ by rounding. The first batches take longer:
    it pays for itself on long fits, above all on GPUs.

    Args:
        backend: of ``torch.compile``.
        dynamic: one graph for all batch sizes.

    Notes:
        Only calls of a network are compiled. A loss that takes a network apart (features, stages) runs as ever.
    """

    def __init__(self, backend: str = "inductor", dynamic: bool = True) -> None:
        self.backend, self.dynamic = backend, dynamic

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Marks the networks; the first call of each compiles it."""
        for network in self._networks(pl_module):
            network.compile(backend=self.backend, dynamic=self.dynamic)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Back to plain calls: the evaluation has an option of its own (protocol.compile)."""
        for network in self._networks(pl_module):
            network._compiled_call_impl = None

    @staticmethod
    def _networks(owner: LightningModule) -> list[nn.Module]:
        assert isinstance(owner, Defense)
        return [getattr(owner, name) for name in owner.active_stage.trains]
