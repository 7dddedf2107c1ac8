"""What the masked memory costs beside its auto-encoder, at Fashion-MNIST's size (compare arXiv:2202.02595, latency)."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks import BenchRow
from robustforge.defenses.memdef.memory import MaskedMemory
from robustforge.defenses.memdef.networks import decoder, encoder

SHAPE, CLASSES, ROWS = (1, 28, 28), 10, 500
REPETITIONS = {10: 400, 128: 60}  # interleaved pairs, by batch
PAPER_RATIO = 0.00619208 / 0.00171196
BAR = 1.15


def run() -> list[BenchRow]:
    """Milliseconds a batch with memory over without; median of interleaved repetitions after warm-up."""
    generator = torch.Generator().manual_seed(0)
    encode, decode = encoder(SHAPE).eval(), decoder(SHAPE).eval()
    memory = MaskedMemory(ROWS, encode.dim, CLASSES).eval()
    rows = []
    for batch, repetitions in REPETITIONS.items():
        x = torch.rand(batch, *SHAPE, generator=generator)
        slots = torch.randint(0, CLASSES, (batch,), generator=generator)

        def with_memory(x: Tensor = x, slots: Tensor = slots) -> Tensor:
            rebuilt: Tensor = decode(memory(encode(x), slots).target)
            return rebuilt

        def without(x: Tensor = x) -> Tensor:
            rebuilt: Tensor = decode(encode(x))
            return rebuilt

        with torch.no_grad():
            ours, theirs = _interleaved_medians(with_memory, without, repetitions)
        note = (
            f"{ROWS}x{encode.dim} rows, hard slots, {repetitions} interleaved pairs, {torch.get_num_threads()} threads"
            f"; the paper's own ratio is {PAPER_RATIO:.1f} (GPU, batch 10)"
        )
        name = f"auto-encoder with memory / without, batch {batch}"
        rows.append(BenchRow(name, ours, theirs, "ms", ours / theirs, BAR, higher_is_better=False, note=note))
    return rows


def _interleaved_medians(
    first: Callable[[], Tensor], second: Callable[[], Tensor], repetitions: int
) -> tuple[float, float]:
    """Median milliseconds of both; a slow spell of the machine then falls on both sides alike."""
    calls = (first, second)
    times: tuple[list[float], list[float]] = ([], [])
    for repetition in range(repetitions + 10):
        # who goes first alternates, so that neither profits from what the other left in the caches
        for which in (0, 1) if repetition % 2 else (1, 0):
            start = time.perf_counter()
            calls[which]()
            if repetition >= 10:
                times[which].append(1e3 * (time.perf_counter() - start))
    return statistics.median(times[0]), statistics.median(times[1])
