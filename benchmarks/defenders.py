"""What N latent defenders cost: one batched network against one defender, and against N modules in a loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from benchmarks import BenchRow
from robustforge.defenses.mrr.networks import Checkpoints
from robustforge.defenses.mrr.stacked_layers import stack
from robustforge.nn.pooled_cnn import pooled_cnn

SHAPE, CLASSES, DEFENDERS = (1, 28, 28), 10, 16
WIDTHS = {"16 channels": (16, 16), "32 channels (released code)": (32, 32)}
BARS = {1: 2.0, 128: 1.0}  # how many times the loop's speed, by batch
REPETITIONS = {1: 200, 128: 15}


def run() -> list[BenchRow]:
    """Milliseconds a batch of MNIST's size: N = 16 batched over a loop of 16 modules, and over a single defender.

    Notes:
        Weights are untrained, which changes no amount of work. Both sides answer logits and features; the densities,
        which are batched either way, are left out. The rows against one defender have no bar and are there to be read:
        16 times is what a cost that is linear in N comes to.
    """
    rows = []
    for words, widths in WIDTHS.items():
        networks = build(widths)
        together, single = stack(networks), stack(networks[:1])
        for module in (together, single):
            module.to(memory_format=torch.channels_last)

        def loop(x: Tensor, networks: Sequence[Checkpoints] = networks) -> list[Tensor]:
            return [network(x)[0] for network in networks]

        for batch, bar in BARS.items():
            x = torch.rand(batch, *SHAPE, generator=torch.Generator().manual_seed(0))
            ours, theirs, one = best_times([together, loop, single], x, REPETITIONS[batch])
            note = f"best of {REPETITIONS[batch]} in turns, {torch.get_num_threads()} threads"
            name = f"{words}, batch {batch}: {DEFENDERS} defenders"
            rows.append(
                BenchRow(f"{name} batched / in a loop (speed)", ours, theirs, "ms", theirs / ours, bar, note=note)
            )
            rows.append(BenchRow(f"{name} / 1 (time)", ours, one, "ms", ours / one, 0.0, note=note))
    return rows


def build(widths: Sequence[int]) -> list[Checkpoints]:
    """Checkpointed victims in eval mode, each with weights of its own."""
    made = []
    with torch.random.fork_rng(devices=[]):
        for seed in range(DEFENDERS):
            torch.manual_seed(seed)
            network = pooled_cnn(SHAPE, CLASSES, (0.13,), (0.31,), widths=widths)
            made.append(Checkpoints(network).eval().requires_grad_(False).to(memory_format=torch.channels_last))
    return made


@torch.no_grad()
def best_times(calls: Sequence[Callable[[Tensor], object]], x: Tensor, repetitions: int) -> list[float]:
    """Milliseconds of each call on ``x``, best of several: other work only ever adds. They take turns."""
    best = [float("inf")] * len(calls)
    for repetition in range(repetitions + 1):
        for place, call in enumerate(calls):
            start = time.perf_counter()
            call(x)
            if repetition:
                best[place] = min(best[place], 1e3 * (time.perf_counter() - start))
    return best
