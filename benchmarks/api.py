"""``rf.attack`` on a network that one has, against other libraries called as their READMEs say."""

from __future__ import annotations

import copy
import inspect
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks import BenchRow, _oracles, _victims, say
from benchmarks._victims import Victim, judge
from robustforge.attacks.pgd import PGD
from robustforge.defenses.base import classify

STEPS, WEAKER = 40, 0.3
Call = Callable[[nn.Module, Tensor, Tensor, float], Tensor]


def with_robustforge(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> Tensor:
    """The README's call."""
    import robustforge as rf

    return rf.attack(model, x, y, "pgd", eps=eps, steps=40).x_adv


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


def _overhead(victim: Victim, repetitions: int = 7) -> BenchRow:
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
    pairs = [(_seconds(ours), _seconds(theirs)) for _ in range(repetitions + 1)][1:]
    ratio = statistics.median(one / other for one, other in pairs)
    mine, other = (statistics.median(side) for side in zip(*pairs, strict=True))
    note = f"{len(victim.x)} images, median of {repetitions} pairs; the process's first call took {first:.2f} s"
    name = f"rf.attack / PGD-{STEPS} on a ready surface, {victim.name}"
    return BenchRow(name, mine, other, "s", ratio, 1.02, higher_is_better=False, note=note)


def _compare(victim: Victim, library: str, call: Call) -> list[BenchRow]:
    say(f"{library}, {victim.name}")
    eps, network = victim.threat.eps, copy.deepcopy(victim.network)
    pairs = []
    for _ in range(4):  # the first warms up
        pairs.append(tuple(_timed(one, network, victim, eps) for one in (with_robustforge, call)))
    ours, theirs = (statistics.median(side) for side in zip(*[[t for _, t in pair] for pair in pairs[1:]], strict=True))
    (mine, _), (other, _) = pairs[-1]
    left, their_left = judge(victim, mine, victim.threat), judge(victim, other, victim.threat)
    lines, their_lines = lines_of(with_robustforge), lines_of(call)
    note = f"{len(victim.x)} images; stand: ours {left.standing:.1f} %, theirs {their_left.standing:.1f} %"
    fair = left.standing <= their_left.standing + WEAKER
    name = f"PGD-{STEPS}, {victim.name}, {library}"
    return [
        BenchRow(f"{name}: seconds", ours, theirs, "s", ours / theirs, 1.0, False, note, fair),
        BenchRow(f"{name}: lines", lines, their_lines, "lines", lines / their_lines, 1.0, False, "as in the READMEs"),
    ]


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
