"""The cost model of docs/scaling.md: passes from the records, times seconds a pass, and what attacks do beside them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F
from scipy.optimize import nnls
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


@dataclass(frozen=True)
class Costs:
    """What the evaluations of one network cost.

    Attributes:
        forward, backward: of a pass, in seconds.
        beyond: by attack, what it does beside the passes (projections, sorting, drawing), a forward pass each: Square
            and FAB spend more there than in a small network.
    """

    forward: Pass
    backward: Pass
    beyond: Mapping[str, Pass] = field(default_factory=dict)

    def seconds(self, records: pa.Table) -> float:
        """Seconds of an evaluation whose cells were each attacked in one batch, by its records."""
        return sum(
            self._in_passes(one) + self.beyond.get(attack, Pass(0.0, 0.0)).seconds(one.most[0], one.all[0])
            for attack, one in _spent(records).items()
        )

    def fitted(self, pilots: Sequence[tuple[pa.Table, Mapping[str, float]]]) -> Costs:
        """The same with ``beyond`` as the pilots say, by least squares without negative costs.

        Args:
            pilots: evaluations of different numbers of images: records, and seconds of all cells of each attack.
        """
        found: dict[str, Pass] = {}
        for attack in pilots[0][1]:
            spent = [(_spent(records)[attack], seconds[attack]) for records, seconds in pilots]
            rest = [max(0.0, seconds - self._in_passes(one)) for one, seconds in spent]
            fixed, each = nnls(np.array([(one.most[0], one.all[0]) for one, _ in spent]), np.array(rest))[0]
            found[attack] = Pass(float(fixed), float(each))
        return replace(self, beyond=found)

    def _in_passes(self, one: _Spent) -> float:
        return self.forward.seconds(one.most[0], one.all[0]) + self.backward.seconds(one.most[1], one.all[1])


@dataclass(frozen=True)
class _Spent:
    """Passes of all cells of an attack, forward and backward: of the image that took most, and of all images."""

    most: tuple[float, float]
    all: tuple[float, float]


def _spent(records: pa.Table) -> dict[str, _Spent]:
    wanted = [(passes, how) for passes in ("forwards", "backwards") for how in ("max", "sum")]
    cells = records.group_by(list(CELL_COLUMNS)).aggregate(wanted)
    columns = [f"{passes}_{how}" for passes, how in wanted]
    rows = cells.group_by("attack").aggregate([(column, "sum") for column in columns]).to_pylist()
    return {
        row["attack"]: _Spent(
            (row["forwards_max_sum"], row["backwards_max_sum"]), (row["forwards_sum_sum"], row["backwards_sum_sum"])
        )
        for row in rows
    }


def costs_of(network: nn.Module, x: Tensor) -> Costs:
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
    return Costs(*found)


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
