"""Our attacks against torchattacks, foolbox and ART: same network, images and budget, in one run."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks import BenchRow, _oracles, _victims, say
from benchmarks._oracles import Oracle
from benchmarks._victims import Victim, judge
from robustforge.accel import fast_bf16
from robustforge.attacks.apgd import APGD
from robustforge.attacks.carlini_wagner import CarliniWagner
from robustforge.attacks.core.attack import Attack
from robustforge.attacks.deepfool import DeepFool
from robustforge.attacks.ensemble import Sampled, WorstCase
from robustforge.attacks.fab import FAB
from robustforge.attacks.jsma import JSMA
from robustforge.attacks.margin_decomposition import MarginDecomposition
from robustforge.attacks.pgd import PGD
from robustforge.attacks.square import Square
from robustforge.defenses.base import classify
from robustforge.types import Threat

WEAKER = 0.3  # points that our robust accuracy may lie above the other library's
UNBOUNDED = Threat("l2", 28.0)  # the diagonal of 1 x 28 x 28: no budget


def run() -> list[BenchRow]:
    """One row an attack, network and library; the bar stands at the fastest other library.

    Raises:
        UserError: foolbox or ART is missing.
    """
    _oracles.require()
    small, wide, residual = _victims.small(), _victims.wide(), _victims.residual()
    # the residual network has batch norm, which a prepared copy folds: its bar lies below the bare passes
    rows = [_overhead(small.some(256), 1.10), _overhead(residual.some(32), 0.85)]
    for victim, count, bar in ((small, 256, 5.0), (wide, 128, 3.0), (residual, 32, 4.0)):
        rows += _compare("PGD-40", PGD(steps=40), _oracles.pgd(40), victim.some(count), victim.threat, bar)
    deepfool, jsma, carlini_wagner = DeepFool(), JSMA(gamma=0.5, target="next", selection="single"), CarliniWagner()
    rows += _compare("DeepFool, 50 steps", deepfool, _oracles.deepfool(50), small.some(64), UNBOUNDED, 5.0)
    rows += _compare("JSMA, half the pixels", jsma, _oracles.jsma(0.5), small.some(16), UNBOUNDED, 3.0)
    rows += _compare(
        "CW-L2, 9 x 1000", carlini_wagner, _oracles.carlini_wagner(9, 1000), small.some(32), UNBOUNDED, 5.0
    )
    for victim, steps, count in ((small, 10, 128), (small, 100, 48), (residual, 10, 8)):
        # 10 steps as torchattacks ships it, 100 as its paper and ours have it
        rows += _ensembles(steps, victim.some(count))
    return rows


def auto(steps: int = 100) -> WorstCase:
    """What ``attack=auto`` composes, at 100 steps a part."""
    parts = {
        "apgd_ce": APGD(name="apgd_ce", steps=steps),
        "apgd_t": APGD(name="apgd_t", loss="dlr", n_target_classes=9, steps=steps),
        "fab_t": FAB(steps=steps),
        "square": Square(),
    }
    return WorstCase(name="auto", attacks=parts)


def auto_fast(steps: int = 100, sample: float = 0.1) -> Sampled:
    """What ``attack=auto_fast`` composes, at 100 steps a part."""
    parts: dict[str, Attack] = {
        "md": MarginDecomposition(steps=steps),
        "apgd_t": APGD(name="apgd_t", loss="dlr", n_target_classes=3, order="malt", steps=steps),
        "apgd_t_rest": APGD(
            name="apgd_t_rest", loss="dlr", n_target_classes=9, skip_target_classes=3, order="malt", steps=steps
        ),
        "fab_t": FAB(steps=steps),
        "square": Square(),
    }
    return Sampled("auto_fast", parts, ("apgd_t_rest", "fab_t", "square"), sample)


def _ensembles(steps: int, victim: Victim) -> list[BenchRow]:
    """``auto`` and ``auto_fast`` against AutoAttack of as many steps."""
    rows = []
    for attack, bar in ((auto(steps), 1.5), (auto_fast(steps), 4.0)):
        what = f"{attack.name} / AutoAttack, {steps} steps a part"
        rows += _compare(what, attack, _oracles.auto_attack(steps), victim, victim.threat, bar)
    return rows


def _compare(
    what: str, attack: Attack, oracles: Mapping[str, Oracle], victim: Victim, threat: Threat, bar: float
) -> list[BenchRow]:
    """Images/s of both sides and what each leaves standing; only the fastest library's row carries the bar."""
    say(f"{what}, {victim.name}")

    def ours() -> Tensor:
        # a fresh copy in the layout that a defense has: the other libraries get the network as it was built
        return attack(surface, victim.x, victim.y, threat).x_adv

    channels_last = _copy(victim)
    surface = classify(channels_last)["end_to_end"]
    adversarial, seconds = _timed(ours)
    left = judge(victim, adversarial, threat)
    found = {}
    for library, oracle in oracles.items():
        theirs, their_seconds = _timed(lambda oracle=oracle: oracle(victim))  # type: ignore[misc]
        found[library] = (their_seconds, judge(victim, theirs, threat))
    fastest = min(found, key=lambda library: found[library][0])
    rows = []
    for library, (their_seconds, their_left) in found.items():
        note = (
            f"{len(victim.x)} images; stand: ours {left.standing:.1f} %, theirs {their_left.standing:.1f} %; "
            f"mean L2 of the fallen: {left.distance:.3f}, {their_left.distance:.3f}"
        )
        its_bar = bar if library == fastest else 0.0
        speeds = len(victim.x) / seconds, len(victim.x) / their_seconds
        fair = left.standing <= their_left.standing + WEAKER
        name = f"{what}, {victim.name}, {library}"
        rows.append(BenchRow(name, *speeds, "images/s", their_seconds / seconds, its_bar, note=note, valid=fair))
    return rows


def _overhead(victim: Victim, bar: float, steps: int = 40, repetitions: int = 5) -> BenchRow:
    """Time of PGD-k over k bare forward and backward passes at the same precision."""
    network = _copy(victim)
    surface = classify(network)["end_to_end"]
    attack = PGD(steps=steps, early_stop=False)
    bf16 = fast_bf16(victim.x.device)
    for parameter in network.parameters():
        parameter.requires_grad_(False)

    def bare() -> Tensor:
        x = victim.x.clone(memory_format=torch.channels_last)
        for _ in range(steps):
            leaf = x.detach().requires_grad_(True)
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                loss = F.cross_entropy(network(leaf).float(), victim.y, reduction="sum")
            torch.autograd.grad(loss, leaf)
        return x

    def forged() -> Tensor:
        return attack(surface, victim.x, victim.y, victim.threat).x_adv

    pairs = [(_timed(forged, warm=False)[1], _timed(bare, warm=False)[1]) for _ in range(repetitions + 1)][1:]
    ours, theirs = (1e3 * statistics.median(side) / steps for side in zip(*pairs, strict=True))
    note = f"{len(victim.x)} images, {steps} steps, {'bf16' if bf16 else 'float32'}, median of {repetitions} pairs"
    name = f"PGD-{steps} / {steps} bare forward and backward passes, {victim.name}"
    return BenchRow(name, ours, theirs, "ms a step", ours / theirs, bar, higher_is_better=False, note=note)


def _copy(victim: Victim) -> torch.nn.Module:
    return copy.deepcopy(victim.network).to(memory_format=torch.channels_last)


def _timed(call: Callable[[], Tensor], warm: bool = True) -> tuple[Tensor, float]:
    """The answer and its seconds; a first call warms up where that is cheap."""
    start = time.perf_counter()
    answer = call()
    seconds = time.perf_counter() - start
    if warm and seconds < 5:  # what the first call of a library builds and caches is not the attack's
        start = time.perf_counter()
        answer = call()
        seconds = time.perf_counter() - start
    return answer, seconds
