"""The few questions that code outside Lightning asks of several processes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist

T = TypeVar("T")
LONGEST = timedelta(days=2)
"""That ranks wait for each other: rank 0 decodes all images, or waits for a product that another run makes."""


def rank() -> int:
    """This process's number; 0 when alone."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def barrier() -> None:
    """Waits for every process."""
    if dist.is_initialized():
        dist.barrier()


def agree(value: T) -> T:
    """Rank 0's value, which can be pickled, on every rank: all must take the same branch."""
    if not dist.is_initialized():
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def gathered(parts: list[T]) -> list[T]:
    """Every process's ``parts``, which can be pickled, one process after the other, on every process."""
    if world_size() == 1:
        return parts
    everyone: list[list[T]] = [[]] * world_size()
    dist.all_gather_object(everyone, parts)
    return [part for shard in everyone for part in shard]


def join(gpu: bool, picked: Sequence[int] = ()) -> None:
    """Takes this process's GPU, and joins the group when a launcher started it as one of several.

    Args:
        gpu: the run is on GPUs, else on the CPU, whatever the machine has.
        picked: numbers of this machine's GPUs, one a process; empty for the first ones.
    """
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if gpu:
        torch.cuda.set_device(picked[local] if picked else local)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if gpu else "gloo", timeout=LONGEST)
