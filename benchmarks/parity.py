"""Are our attacks as strong as the other libraries'? The same networks, images, budgets and steps, as shipped.

On a plain and an adversarially trained small CNN, 512 test images: of MNIST where it is at hand, of scikit-learn's
digits where it is not (then there are 360). Attacks that draw random numbers are run with several seeds on both sides.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from statistics import mean

import torch

from benchmarks import BenchRow, _oracles, _victims, say
from benchmarks._oracles import Oracle
from benchmarks._victims import Victim, judge
from robustforge.attacks.apgd import APGD
from robustforge.attacks.bim import BIM
from robustforge.attacks.carlini_wagner import CarliniWagner
from robustforge.attacks.core.attack import Attack
from robustforge.attacks.core.surface import Surface
from robustforge.attacks.deepfool import DeepFool
from robustforge.attacks.fab import FAB
from robustforge.attacks.fgsm import FGSM
from robustforge.attacks.fmn import FMN
from robustforge.attacks.pgd import PGD
from robustforge.attacks.square import Square
from robustforge.defenses.base import classify
from robustforge.types import Threat

IMAGES = 512
WEAKER = 0.5  # points of robust accuracy
FARTHER = 1.02  # of the mean L2
SEEDS = 3
UNBOUNDED = Threat("l2", 28.0)


@dataclass(frozen=True)
class Pair:
    """One attack of ours, and its namesake as a function of the seed.

    Attributes:
        ours: with this project's defaults of precision.
        theirs: seed -> the other library's.
        seeds: runs that are averaged; 1 for attacks without random draws.
    """

    ours: Attack
    theirs: Callable[[int], Oracle]
    seeds: int = SEEDS


def pairs(eps: float) -> dict[str, Pair]:
    """The attacks within an L-infinity ball of radius ``eps``, by what is printed."""

    def named(name: str, **settings: object) -> Callable[[int], Oracle]:
        return lambda seed: lambda victim: _oracles.torchattacks_of(victim, name, seed, eps=eps, **settings)

    step = 2.5 * eps / 40
    momentum = BIM("mim", steps=10, step_size=eps / 10, momentum=1.0)
    ninefold = APGD(steps=20, loss="dlr", n_target_classes=9)
    return {
        "FGSM": Pair(FGSM(), named("FGSM"), 1),
        "MIM-10": Pair(momentum, named("MIFGSM", alpha=eps / 10, steps=10, decay=1.0), 1),
        "PGD-40": Pair(PGD(steps=40), named("PGD", alpha=step, steps=40)),
        "APGD-CE, 50 steps": Pair(APGD(steps=50), named("APGD", steps=50, loss="ce")),
        "APGD-DLR, 50 steps": Pair(APGD(steps=50, loss="dlr"), named("APGD", steps=50, loss="dlr")),
        "APGD-T, 20 steps": Pair(ninefold, named("APGDT", steps=20, n_classes=10)),
        "FAB-T, 20 steps": Pair(FAB(steps=20), named("FAB", steps=20, multi_targeted=True, n_classes=10), 1),
        "Square, 1,000 queries": Pair(Square(n_queries=1000), named("Square", n_queries=1000)),
    }


def minimum_norm() -> dict[str, tuple[Attack, Oracle]]:
    """The attacks that look for the least L2, and foolbox's."""
    carlini_wagner = CarliniWagner(search_steps=5, steps=200, initial_c=0.1)
    return {
        "CW-L2, 5 x 200": (carlini_wagner, _oracles.carlini_wagner(5, 200, 1e-2, 0.1)["foolbox"]),
        "DeepFool, 50 steps": (DeepFool(), _oracles.deepfool(50)["foolbox"]),
        "FMN, 100 steps": (FMN(steps=100), _oracles.fast_minimum_norm(100)["foolbox"]),
    }


def run() -> list[BenchRow]:
    """Two rows an attack: the plain and the adversarially trained network.

    Raises:
        UserError: foolbox is missing.
    """
    _oracles.require()
    rows = []
    for victim in _victims.plain_and_robust(IMAGES):
        rows += [_strength(what, pair, victim) for what, pair in pairs(victim.threat.eps).items()]
        rows += [_distance(what, *both, victim) for what, both in minimum_norm().items()]
    return rows


def _strength(what: str, pair: Pair, victim: Victim) -> BenchRow:
    """Robust accuracies; the bar is on their difference in points."""
    say(f"{what}, {victim.name}")
    surface, (ours, theirs) = _surface(victim), (list[float](), list[float]())
    for seed in range(pair.seeds):
        mine = pair.ours(surface, victim.x, victim.y, victim.threat, seed=seed).x_adv
        ours.append(judge(victim, mine, victim.threat).standing)
        theirs.append(judge(victim, pair.theirs(seed)(victim), victim.threat).standing)
    note = f"{len(victim.x)} images, L-infinity {victim.threat.eps:g}, {pair.seeds} seed(s); difference in points"
    return BenchRow(
        f"{what}, {victim.name}, torchattacks",
        mean(ours),
        mean(theirs),
        "% standing",
        mean(ours) - mean(theirs),
        WEAKER,
        higher_is_better=False,
        note=note,
    )


def _distance(what: str, attack: Attack, oracle: Oracle, victim: Victim) -> BenchRow:
    """Mean L2 of the images that each side fools; fair only at no lower success."""
    say(f"{what}, {victim.name}")
    ours = judge(victim, attack(_surface(victim), victim.x, victim.y, UNBOUNDED).x_adv, UNBOUNDED)
    theirs = judge(victim, oracle(victim), UNBOUNDED)
    note = f"{len(victim.x)} images; stand: ours {ours.standing:.1f} %, theirs {theirs.standing:.1f} %; ratio of means"
    return BenchRow(
        f"{what}, {victim.name}, foolbox",
        ours.distance,
        theirs.distance,
        "mean L2",
        ours.distance / theirs.distance,
        FARTHER,
        higher_is_better=False,
        note=note,
        valid=ours.standing <= theirs.standing,
    )


def _surface(victim: Victim) -> Surface:
    return classify(copy.deepcopy(victim.network).to(memory_format=torch.channels_last))["end_to_end"]
