"""Where a run computes: the trainer's settings, compared with what this machine has before anything is made."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from robustforge.types import UserError

ACCELERATORS = ("cpu", "gpu", "auto")
# the others of Lightning split a network over devices or start processes of their own
STRATEGIES = ("auto", "ddp", "ddp_find_unused_parameters_true", "ddp_find_unused_parameters_false")


@dataclass(frozen=True)
class Devices:
    """Where a run computes.

    Attributes:
        gpu: on GPUs, else on the CPU.
        count: processes on each machine, one a GPU.
        nodes: machines.
        picked: numbers of the GPUs on this machine, one a process; empty for the first ``count``.
    """

    gpu: bool
    count: int
    nodes: int = 1
    picked: tuple[int, ...] = ()

    @property
    def processes(self) -> int:
        """On all machines."""
        return self.count * self.nodes


def devices_of(trainer: Mapping[str, Any]) -> Devices:
    """What the ``trainer`` group asks for, if this machine has it.

    Args:
        trainer: its ``accelerator``, ``devices``, ``num_nodes``, ``strategy`` and ``sync_batchnorm``.

    Raises:
        UserError: there is no such device, or not as many, or these settings do not go together.
    """
    gpu, nodes, strategy = _on_gpu(trainer["accelerator"]), trainer.get("num_nodes", 1), trainer.get("strategy", "auto")
    if not _is_count(nodes):
        raise UserError(f"trainer.num_nodes is {nodes}: give a number of machines, 1 or more.")
    if strategy not in STRATEGIES:
        raise UserError(f"trainer.strategy is '{strategy}': choose one of {', '.join(STRATEGIES)}.")
    if trainer.get("sync_batchnorm") and not gpu:
        raise UserError("trainer.sync_batchnorm needs GPUs: leave it out, each process then normalizes its own batch.")
    count, picked = _counted(trainer["devices"], gpu)
    return Devices(gpu, count, nodes, picked)


def _on_gpu(accelerator: Any) -> bool:
    word = "gpu" if accelerator == "cuda" else accelerator
    if word not in ACCELERATORS:
        raise UserError(
            f"trainer.accelerator (device, to evaluate a run) is '{accelerator}': choose one of "
            f"{', '.join(ACCELERATORS)}."
        )
    if word == "cpu":
        return False
    available = _gpus() > 0
    if word == "gpu" and not available:
        raise UserError("There is no GPU that PyTorch can use here: give trainer=cpu (device=cpu to evaluate a run).")
    return available


def _gpus() -> int:
    import torch  # seconds, and a run on the CPU that only starts others does not need it

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _counted(devices: Any, gpu: bool) -> tuple[int, tuple[int, ...]]:
    """Number of processes, and the GPUs that were picked by number."""
    if devices in ("auto", -1):
        return (_gpus() if gpu else 1), ()
    if _is_count(devices):
        if gpu and devices > _gpus():
            raise UserError(f"trainer.devices is {devices}, and this machine has {_gpus()}: give as many, or auto.")
        return devices, ()
    if isinstance(devices, str) or not hasattr(devices, "__iter__") or not gpu:
        kinds = "auto, or a list of GPUs by number" if gpu else "or auto"
        raise UserError(f"trainer.devices is {devices}: give a number of processes, 1 or more, {kinds}.")
    picked = tuple(devices)
    if not picked or len(set(picked)) < len(picked) or not all(_is_number(one) and one < _gpus() for one in picked):
        raise UserError(
            f"trainer.devices is {list(picked)}: give different numbers of GPUs, from 0 to {_gpus() - 1} here."
        )
    return len(picked), picked


def check_launch(devices: Devices) -> None:
    """Refuses what would wait for processes that nobody starts, or train several times what is trained once.

    Args:
        devices: of a run that trains.

    Raises:
        UserError: other processes must be started by hand, or not as many were started as the trainer wants.
    """
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if devices.nodes > 1 and started == 1:
        raise UserError(
            f"trainer.num_nodes is {devices.nodes}, and one command starts processes on one machine: start all "
            f"{devices.processes} with torchrun (--nnodes={devices.nodes} --nproc-per-node={devices.count}) or srun."
        )
    if started not in (1, devices.processes):
        raise UserError(
            f"{started} processes were started, and trainer.devices x trainer.num_nodes is {devices.processes}: make "
            "them equal."
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_count(value: Any) -> bool:
    return _is_number(value) and value > 0
