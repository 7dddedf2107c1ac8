"""Reclassification by the decoder: all K starts in one batch against a loop over starts, at MNIST's size (Eq. 9)."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks import BenchRow
from robustforge.accel import fast_bf16
from robustforge.defenses.gmvae.mixture import class_means
from robustforge.defenses.gmvae.networks import mixture_decoder
from robustforge.defenses.gmvae.reclassify import search_latents

SHAPE, CLASSES = (1, 28, 28), 10
STEPS, LR = 10, 0.05  # of Adam: the work is linear in the steps
WIDTHS = (0.5, 1.0)  # the cpu profile's network and the full one
REPETITIONS = 3  # best of, the two sides in turn
BATCH = 8  # images of the rows without a bar
BAR = 5.0


def run() -> list[BenchRow]:
    """Images a second of the batched search over the same search start by start.

    Notes:
        Weights are untrained, which changes no amount of work. The bar stands where one rejected image waits for its
        answer. Of many images at once even a loop over starts fills its batches: there the ratio is told without a bar.
    """
    x = torch.rand(BATCH, *SHAPE, generator=torch.Generator().manual_seed(0))
    rows = []
    for width in WIDTHS:
        torch.manual_seed(0)
        decoder = mixture_decoder(SHAPE, CLASSES, width).eval().requires_grad_(False)
        decoder.to(memory_format=torch.channels_last)
        rows += [_row(decoder, width, x[:1], BAR), _row(decoder, width, x, 0.0)]
    return rows


def _row(decoder: nn.Module, width: float, x: Tensor, bar: float) -> BenchRow:
    means, bf16 = class_means(CLASSES, CLASSES), fast_bf16(x.device)

    def batched() -> None:
        search_latents(decoder, means.expand(len(x), -1, -1), x, STEPS, LR, bf16)

    def loop() -> None:
        for start in means:
            search_latents(decoder, start.expand(len(x), 1, -1), x, STEPS, LR, bf16)

    ours, theirs = (len(x) / seconds for seconds in best_seconds(batched, loop))
    many = f"{len(x)} image{'s' if len(x) > 1 else ''}"
    note = (
        f"{STEPS} steps, {'bf16' if bf16 else 'float32'} on both sides, best of {REPETITIONS}, "
        f"{torch.get_num_threads()} threads"
    )
    name = f"{CLASSES} starts batched / one by one, {many}, width {width:g}"
    return BenchRow(name, ours, theirs, "images/s", ours / theirs, bar, note=note)


def best_seconds(first: Callable[[], None], second: Callable[[], None]) -> tuple[float, float]:
    """Best seconds of both, in turn after a warm-up: what else the machine does only ever adds."""
    best = [float("inf"), float("inf")]
    for repetition in range(REPETITIONS + 1):
        for place, call in enumerate((first, second)):
            start = time.perf_counter()
            call()
            if repetition:
                best[place] = min(best[place], time.perf_counter() - start)
    return best[0], best[1]
