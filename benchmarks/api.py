"""``rf.attack`` on a network that one has, against other libraries called as their READMEs say."""

from __future__ import annotations

import copy
import inspect
import math
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks import BenchRow, _oracles, _victims, say
from benchmarks._victims import Victim, standing
from robustforge.attacks.pgd import PGD
from robustforge.defenses.base import classify

STEPS = 40
WEAKER = 0.3  # points by which ours may leave more images: less than that is rounding
CHANCE = 0.05  # or as many as different random starts leave in one of twenty comparisons of the very same attack
SEEDS = 8  # of the random starts that are compared
Call = Callable[[nn.Module, Tensor, Tensor, float], Tensor]


def with_robustforge(model: nn.Module, x: Tensor, y: Tensor, eps: float, seed: int = 0) -> Tensor:
    """The README's call; the others' starts follow torch's own seed."""
    import robustforge as rf

    return rf.attack(model, x, y, "pgd", eps=eps, steps=40, seed=seed).x_adv


def with_torchattacks(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> Tensor:
    """As its README has it."""
    import torchattacks

    model.eval()
    attack = torchattacks.PGD(model, eps=eps, alpha=2.5 * eps / 40, steps=40)
    return attack(x, y)


def with_foolbox(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> Tensor:
    """As its README has it."""
    import foolbox

    model.eval()
    fmodel = foolbox.PyTorchModel(model, bounds=(0, 1))
    attack = foolbox.attacks.LinfPGD(steps=40, rel_stepsize=2.5 / 40)
    _, clipped, _ = attack(fmodel, x, y, epsilons=eps)
    return clipped


def run() -> list[BenchRow]:
    """Overhead of the call, then seconds, robust accuracy and lines of code beside each library.

    Raises:
        UserError: foolbox or ART is missing.
    """
    _oracles.require()
    rows = []
    for victim in (_victims.small().some(256), _victims.wide().some(64)):
        rows.append(_overhead(victim))
        for library, call in (("torchattacks", with_torchattacks), ("foolbox", with_foolbox)):
            rows += _compare(victim, library, call)
    return rows


def _overhead(victim: Victim, repetitions: int = 10) -> BenchRow:
    """Seconds of ``rf.attack`` over those of the attack object on a surface that is ready: frozen and laid out."""
    say(f"overhead, {victim.name}")
    surface = classify(copy.deepcopy(victim.network).to(memory_format=torch.channels_last).eval())["end_to_end"]
    bare = PGD(steps=STEPS)
    network = copy.deepcopy(victim.network)

    def theirs() -> Tensor:
        return bare(surface, victim.x, victim.y, victim.threat).x_adv

    def ours() -> Tensor:
        return with_robustforge(network, victim.x, victim.y, victim.threat.eps)

    first = _seconds(ours)
    same = torch.equal(ours(), theirs())  # the same work, and both are warm now
    pairs = []
    for number in range(repetitions):  # in turns: whoever comes second finds warmer caches, or a hotter processor
        order = (ours, theirs) if number % 2 == 0 else (theirs, ours)
        seconds = {call: _seconds(call) for call in order}
        pairs.append((seconds[ours], seconds[theirs]))
    ratio = statistics.median(one / other for one, other in pairs)
    mine, other = (statistics.median(side) for side in zip(*pairs, strict=True))
    note = f"{len(victim.x)} images, median of {repetitions} pairs; the process's first call took {first:.2f} s"
    name = f"rf.attack / PGD-{STEPS} on a ready surface, {victim.name}"
    return BenchRow(name, mine, other, "s", ratio, 1.02, higher_is_better=False, note=note, valid=same)


def _compare(victim: Victim, library: str, call: Call, seeds: int = SEEDS) -> list[BenchRow]:
    say(f"{library}, {victim.name}")
    eps, network = victim.threat.eps, copy.deepcopy(victim.network)
    seconds, stand = [], []
    for seed in range(-1, seeds):  # the first warms up
        torch.manual_seed(max(0, seed))
        pair = [_timed(one, network, victim, eps) for one in (partial(with_robustforge, seed=max(0, seed)), call)]
        if seed >= 0:
            seconds.append([spent for _, spent in pair])
            stand.append(torch.stack([standing(victim, made, victim.threat) for made, _ in pair]))
    ours, theirs = (statistics.median(side) for side in zip(*seconds, strict=True))
    mine, other = torch.cat(stand, dim=1)
    left, their_left = (100 * float(side.double().mean()) for side in (mine, other))
    lines, their_lines = lines_of(with_robustforge), lines_of(call)
    note = f"{len(victim.x)} images, {seeds} starts; stand: ours {left:.2f} %, theirs {their_left:.2f} %"
    name = f"PGD-{STEPS}, {victim.name}, {library}"
    return [
        BenchRow(f"{name}: seconds", ours, theirs, "s", ours / theirs, 1.0, False, note, no_weaker(mine, other)),
        BenchRow(f"{name}: lines", lines, their_lines, "lines", lines / their_lines, 1.0, False, "as in the READMEs"),
    ]


def no_weaker(ours: Tensor, theirs: Tensor) -> bool:
    """Whether our attack leaves no more images than the other, beyond rounding and chance.

    Args:
        ours: (n,) bool, images that ours left, over several random starts.
        theirs: likewise, of the same images in the same order.

    Notes:
        Where both attacks are equally strong, an image that one of them leaves alone is as likely ours as theirs: the
        sign test (exact McNemar). One image of 64 is 1.6 points, so that points alone would fail equal attacks.
    """
    mine, other = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
    if 100 * (mine - other) <= WEAKER * len(ours):
        return True
    split = mine + other
    return sum(math.comb(split, k) for k in range(mine, split + 1)) / 2**split > CHANCE


def lines_of(function: Call) -> int:
    """Lines of code of a function's body, without its docstring and blank lines."""
    body = inspect.getsource(function).split('"""')[-1]
    return sum(bool(line.strip()) for line in body.splitlines())


def _timed(call: Call, network: nn.Module, victim: Victim, eps: float) -> tuple[Tensor, float]:
    started = time.perf_counter()
    adversarial = call(network, victim.x, victim.y, eps).detach()
    return adversarial, time.perf_counter() - started


def _seconds(call: Callable[[], Tensor]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started
