"""What the parts of Memory Defense cost an image, and what memory adds to its auto-encoder (arXiv:2202.02595)."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from benchmarks import BenchRow
from robustforge.defenses.memdef.stack import MemoryStack
from robustforge.nn.resnet import resnet50

SHAPES = {"Fashion-MNIST": (1, 28, 28), "CIFAR-10": (3, 32, 32)}
REPETITIONS = {1: 21, 128: 3}  # by batch, after one warm-up
PAPER_SECONDS = {"without": 0.00171196, "with": 0.00619208}  # on an RTX 2080 Ti, "for an average of 10 images"
Part = Callable[[], object]


def run() -> list[BenchRow]:
    """Milliseconds an image: auto-encoder with memory over that without, and every part over the whole system.

    Notes:
        Weights are untrained, which changes no amount of work. The paper says neither the batch nor whether the
        classifiers are part of its figures. The rows are there to be read: no bar can fail.
    """
    rows = []
    for name, shape in SHAPES.items():
        for batch in REPETITIONS:
            x = torch.rand(batch, *shape, generator=torch.Generator().manual_seed(0))
            found = best_times(parts(shape, x), REPETITIONS[batch])
            rows += [_row(f"{name}, batch {batch}", batch, found, *pair) for pair in _pairs(found)]
    return rows


@torch.inference_mode()
def parts(shape: tuple[int, int, int], x: Tensor) -> dict[str, Part]:
    """What is timed, by name: each part on the output of the one before it."""
    channels = shape[0]
    selector = resnet50(shape, 10, (0.5,) * channels, (0.5,) * channels, stem="cifar_pool").eval()
    stack = MemoryStack(shape, 10).eval()
    slots = torch.arange(len(x)) % 10
    latent = stack.encoder(x)
    read = stack.memory(latent, slots).target
    rebuilt = stack.decoder(read)
    return {
        "without memory": lambda: stack.decoder(stack.encoder(x)),
        "with memory": lambda: stack.decoder(stack.memory(stack.encoder(x), slots).target),
        "whole system": lambda: stack(x, selector(x).argmax(1)),
        "classifier-A": lambda: selector(x),
        "encoder": lambda: stack.encoder(x),
        "memory": lambda: stack.memory(latent, slots),
        "decoder": lambda: stack.decoder(read),
        "classifier-B": lambda: stack.classifier_b(rebuilt),
    }


@torch.inference_mode()
def best_times(timed: Mapping[str, Part], repetitions: int) -> dict[str, float]:
    """Seconds a call, best of several: what else the machine does only ever adds. Parts take turns."""
    best = dict.fromkeys(timed, float("inf"))
    for repetition in range(repetitions + 1):
        for name, call in timed.items():
            start = time.perf_counter()
            call()
            if repetition:
                best[name] = min(best[name], time.perf_counter() - start)
    return best


def _pairs(found: Mapping[str, float]) -> list[tuple[str, str]]:
    single = [name for name in found if name not in ("with memory", "without memory", "whole system")]
    return [("with memory", "without memory"), *((name, "whole system") for name in single)]


def _row(where: str, batch: int, found: Mapping[str, float], part: str, whole: str) -> BenchRow:
    note = f"best of {REPETITIONS[batch]}, {torch.get_num_threads()} threads"
    if part == "with memory":
        ratio = PAPER_SECONDS["with"] / PAPER_SECONDS["without"]
        note += f"; the paper prints 0.00619 s and 0.00171 s (RTX 2080 Ti, 10 images), a ratio of {ratio:.2f}"
    ours, theirs = (1e3 * found[name] / batch for name in (part, whole))
    return BenchRow(f"{part} / {whole}, {where}", ours, theirs, "ms/image", ours / theirs, 0.0, note=note)
