"""What N latent defenders cost: one batched network against N modules in a loop, and against PyTorch's own vmap."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.func import functional_call, stack_module_state

from benchmarks import BenchRow
from robustforge.defenses.mrr.networks import Checkpoints
from robustforge.defenses.mrr.stacked_layers import stack
from robustforge.nn.pooled_cnn import pooled_cnn

SHAPE, CLASSES, DEFENDERS = (1, 28, 28), 10, 16
WIDTHS = {"16 channels": (16, 16), "32 channels (released code)": (32, 32)}
# how many times the speed of each, by batch; 1.5 times vmap's at batch 1 is what our own stacking must be worth
BARS = {"in a loop": {1: 2.0, 128: 1.0}, "under vmap": {1: 1.5, 128: 1.0}}
REPETITIONS = {1: 200, 128: 15}

Call = Callable[[Tensor], object]


def run() -> list[BenchRow]:
    """Milliseconds a batch of MNIST's size: N = 16 batched over a loop of 16 modules, vmap, and a single defender.

    Notes:
        Weights are untrained, which changes no amount of work. All sides answer logits and features; the densities,
        which are batched either way, are left out. The rows against one defender have no bar and are there to be read:
        16 times is what a cost that is linear in N comes to.
    """
    rows = []
    for words, widths in WIDTHS.items():
        networks = build(widths)
        together, single = (stack(some).to(memory_format=torch.channels_last) for some in (networks, networks[:1]))
        calls = {"in a loop": loop(networks), "under vmap": vmapped(networks), "ours": together, "one": single}
        for batch, repetitions in REPETITIONS.items():
            x = torch.rand(batch, *SHAPE, generator=torch.Generator().manual_seed(0))
            times = median_times(calls, x, repetitions)
            note = f"median of {repetitions} in turns, {torch.get_num_threads()} threads"
            name, ours = f"{words}, batch {batch}: {DEFENDERS} defenders", times["ours"]
            for other, bars in BARS.items():
                title = f"{name} batched / {other} (speed)"
                rows.append(BenchRow(title, ours, times[other], "ms", times[other] / ours, bars[batch], note=note))
            title = f"{name} / 1 (time)"
            rows.append(BenchRow(title, ours, times["one"], "ms", ours / times["one"], 0.0, note=note))
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


def loop(networks: Sequence[Checkpoints]) -> Call:
    """The networks one after another: their answers (logits (B, K), features)."""
    return lambda x: [network(x) for network in networks]


def vmapped(networks: Sequence[Checkpoints]) -> Call:
    """The networks in one pass by ``torch.func``: (logits (N, B, K), features (N, B, D))."""
    state, template = stack_module_state(list(networks)), copy.deepcopy(networks[0]).to("meta")

    def one(parameters: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor) -> object:
        return functional_call(template, (parameters, buffers), (x,))

    return lambda x: torch.vmap(one, in_dims=(0, 0, None))(*state, x)


@torch.no_grad()
def median_times(calls: Mapping[str, Call], x: Tensor, repetitions: int) -> dict[str, float]:
    """Median milliseconds of each call on ``x``; they take turns. With one thread, of this process alone."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    seen: dict[str, list[float]] = {name: [] for name in calls}
    for repetition in range(repetitions + 1):
        for name, call in calls.items():
            start = clock()
            call(x)
            if repetition:
                seen[name].append(1e3 * (clock() - start))
    return {name: statistics.median(values) for name, values in seen.items()}
