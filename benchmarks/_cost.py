"""The cost model of docs/scaling.md: passes from the records, times seconds a pass."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustforge.accel import fast_bf16
from robustforge.records.schema import CELL_COLUMNS


@dataclass(frozen=True)
class Pass:
    """Seconds of one pass of a batch of B images: ``fixed + each * B``.

    Attributes:
        fixed: what a pass costs however few images it has.
        each: what an image adds.
    """

    fixed: float
    each: float

    def seconds(self, most: float, all_images: float) -> float:
        """Of a batch that shrinks as its images are done: passes of the image that took most, and of all together."""
        return self.fixed * most + self.each * all_images


def predicted_seconds(records: pa.Table, network: nn.Module, x: Tensor) -> float:
    """Seconds of an evaluation whose cells were each attacked in one batch.

    Args:
        records: of the evaluation.
        network: that is attacked, (B, C, H, W) -> (B, K).
        x: images to measure with, (B, C, H, W).
    """
    forward, backward = passes_of(network, x)
    wanted = [(passes, how) for passes in ("forwards", "backwards") for how in ("max", "sum")]
    cells = records.group_by(list(CELL_COLUMNS)).aggregate(wanted).to_pylist()
    return sum(
        forward.seconds(cell["forwards_max"], cell["forwards_sum"])
        + backward.seconds(cell["backwards_max"], cell["backwards_sum"])
        for cell in cells
    )


def passes_of(network: nn.Module, x: Tensor) -> tuple[Pass, Pass]:
    """A forward pass, and what the backward pass to the image adds, at the precision of attacks.

    Args:
        network: (B, C, H, W) -> (B, K).
        x: images (B, C, H, W), at least 16; measured with all of them and with an eighth.
    """
    network = network.to(memory_format=torch.channels_last).eval().requires_grad_(False)
    sizes = len(x) // 8, len(x)
    few, many = (_times(network, x[:size]) for size in sizes)
    found = []
    for small, large in zip(few, many, strict=True):
        each = max(0.0, (large - small) / (sizes[1] - sizes[0]))
        found.append(Pass(max(0.0, small - each * sizes[0]), each))
    return found[0], found[1]


def _times(network: nn.Module, x: Tensor, repetitions: int = 15) -> tuple[float, float]:
    """(seconds of a forward pass, of the backward pass)."""
    images = x.contiguous(memory_format=torch.channels_last)
    labels = torch.zeros(len(x), dtype=torch.long, device=x.device)
    bf16 = fast_bf16(x.device)

    def forward() -> Tensor:
        with torch.autocast(x.device.type, torch.bfloat16, enabled=bf16):
            logits: Tensor = network(images).float()
        return logits

    def both() -> None:
        images.requires_grad_(True)
        torch.autograd.grad(F.cross_entropy(forward(), labels, reduction="sum"), images)
        images.requires_grad_(False)

    one, two = _median(forward, repetitions, x.device), _median(both, repetitions, x.device)
    return one, max(0.0, two - one)


def _median(call: Callable[[], object], repetitions: int, device: torch.device) -> float:
    times = []
    for _ in range(repetitions + 2):
        started = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - started)
    return statistics.median(times[2:])
