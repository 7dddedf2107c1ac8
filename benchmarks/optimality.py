"""AttackBench's score (Cina et al. 2025, arXiv:2404.19460) of every attack that looks for small perturbations.

Of each image the smallest perturbation that any attack found is the reference. An attack's robust accuracy falls as the
budget grows; the area under it, up to the largest reference, is compared with the area under the reference's:

    optimality = 1 - (area of the attack - area of the reference)
                   / (clean accuracy x largest reference - area of the reference)

Fixed-budget attacks search each image's smallest budget by bisection, sharing the passes among the budgets: each try
may cost a seventh of them, and whoever spends less has more tries.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks import BenchRow, _oracles, _victims, say
from benchmarks._contenders import ROUNDS, Bounded, Contender, contenders
from benchmarks._counted import Counted, counted
from benchmarks._victims import Victim
from robustforge.attacks.core.geometry import NORMS
from robustforge.types import COUNTS, Norm

IMAGES = 64
PASSES = 1000  # forward, and as many backward
MOST_ROUNDS = 20  # of a fixed-budget attack's bisection: the last ones are finer than any norm's rounding
NOISE = 0.2  # points of optimality by which namesakes may differ
LARGEST: dict[Norm, float] = {"linf": 0.5, "l2": 6.0, "l1": 48.0, "l0": 64.0}  # budget that the search begins to halve


@dataclass(frozen=True)
class Score:
    """How an attack did.

    Attributes:
        contender: which.
        distances: (N,) of its adversarial images, 0 for images wrong from the start, infinite where it found none.
        forwards: passes an image.
        backwards: the same.
        seconds: of all images.
        optimality: see above, percent.
    """

    contender: Contender
    distances: Tensor
    forwards: float
    backwards: float
    seconds: float
    optimality: float = float("nan")


def run() -> list[BenchRow]:
    """For each norm: our best attack against the others' best, and each of ours against its namesakes.

    Raises:
        UserError: foolbox, ART or adversarial-library is missing.
    """
    _oracles.require()
    victim, rows = _victims.small().some(IMAGES), list[BenchRow]()
    for norm in LARGEST:
        scores = measure(victim, norm, PASSES)
        Console(width=None if sys.stdout.isatty() else 120).print(table_of(scores, norm, victim))
        rows += compared(scores, norm)
    return rows


def measure(victim: Victim, norm: Norm, passes: int) -> list[Score]:
    """Every contender's score, best first."""
    found = []
    for contender in contenders(norm, passes):
        say(f"{norm}: {contender.attack}, {contender.library}")
        found.append(_measured(contender, victim, norm, passes))
    return scored(found, float((found[0].distances > 0).float().mean()))


def scored(found: Sequence[Score], clean: float) -> list[Score]:
    """The same with their optimality, best first; ``clean`` is the share of images right from the start."""
    reference = torch.stack([score.distances for score in found]).amin(0)
    largest = float(reference[reference.isfinite()].max())

    def area(distances: Tensor) -> float:
        return float(distances.clamp(max=largest).mean())

    best = area(reference)
    scale = clean * largest - best
    scores = [
        Score(
            one.contender,
            one.distances,
            one.forwards,
            one.backwards,
            one.seconds,
            100 * (1 - (area(one.distances) - best) / scale),
        )
        for one in found
    ]
    return sorted(scores, key=lambda score: -score.optimality)


def _measured(contender: Contender, victim: Victim, norm: Norm, passes: int = PASSES) -> Score:
    right = (victim.network(victim.x).argmax(1) == victim.y).nonzero().flatten()
    asked, network = counted(Victim(victim.name, victim.network, victim.x[right], victim.y[right], victim.threat))
    begin = time.perf_counter()
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        if contender.smallest is not None:
            reached = distances(asked, contender.smallest(asked), norm, network.network)
        else:
            assert contender.bounded is not None
            reached = halved(asked, contender.bounded, norm, network, passes)
    seconds, whole = time.perf_counter() - begin, torch.zeros(len(victim.x))
    whole[right] = reached
    return Score(contender, whole, network.forwards / len(right), network.backwards / len(right), seconds)


@torch.no_grad()
def distances(victim: Victim, adversarial: Tensor, norm: Norm, network: Callable[[Tensor], Tensor]) -> Tensor:
    """(N,) of images that the network gets wrong in float32, else infinite; outside [0, 1] counts as right."""
    adversarial = adversarial.detach().float()
    wrong = network(adversarial).argmax(1) != victim.y
    valid = (adversarial.flatten(1).amin(1) >= -1e-6) & (adversarial.flatten(1).amax(1) <= 1 + 1e-6)
    return torch.where(wrong & valid, NORMS[norm](adversarial - victim.x), float("inf"))


def halved(victim: Victim, attack: Bounded, norm: Norm, asked: Counted, passes: int = PASSES) -> Tensor:
    """(N,) smallest distances found by bisection of each image's own budget; images at one budget are one batch.

    Seven budgets are tried, and more as long as another one fits into the passes: an attack that stops at its first
    success spends less on each.

    Args:
        victim: the network that counts, and the images.
        attack: within a radius.
        norm: of the radius.
        asked: the victim's network.
        passes: forward, and as many backward, that an image may cost on average.
    """
    low, high = torch.zeros(len(victim.x)), torch.full((len(victim.x),), LARGEST[norm])
    best = torch.full_like(high, float("inf"))
    for number in range(MOST_ROUNDS):
        before = asked.spent()
        middle = (low + high) / 2
        middle = middle.floor().clamp_min(1) if norm in COUNTS else middle
        for eps in middle.unique().tolist():
            rows = (middle == eps).nonzero().flatten()
            part = Victim(victim.name, victim.network, victim.x[rows], victim.y[rows], victim.threat)
            found = distances(part, attack(part, eps), norm, asked.network)
            found = torch.where(found <= eps * 1.001 + 1e-6, found, float("inf"))
            best[rows] = torch.minimum(best[rows], found)
            fell = found.isfinite()
            high[rows], low[rows] = (
                torch.where(fell, torch.minimum(middle[rows], found), high[rows]),
                torch.where(fell, low[rows], middle[rows]),
            )
        if number + 1 >= ROUNDS and 2 * asked.spent() - before > passes * len(victim.x):
            break
    return best


def table_of(scores: Sequence[Score], norm: Norm, victim: Victim) -> Table:
    """All contenders of one norm, best first."""
    table = Table(title=f"{norm}, {victim.name}, {len(victim.x)} images")
    for column in ("rank", "attack", "library", "optimality %", "median", "forward", "backward", "seconds"):
        table.add_column(column, justify="left" if column in ("attack", "library") else "right")
    for rank, one in enumerate(scores, 1):
        numbers = f"{one.optimality:.1f}", f"{float(one.distances.median()):.4g}", f"{one.forwards:.0f}"
        ends = f"{one.backwards:.0f}", f"{one.seconds:.1f}"
        table.add_row(str(rank), one.contender.attack, one.contender.library, *numbers, *ends)
    return table


def compared(scores: Sequence[Score], norm: Norm) -> list[BenchRow]:
    """Our best against the best of the others, and each of ours against the best of its name."""
    ours = [score for score in scores if score.contender.library == "ours"]
    others = [score for score in scores if score.contender.library != "ours"]
    rows = [_row(f"{norm}: our best against the others' best", ours[0], others[0])]
    for one in ours:
        namesakes = [score for score in others if score.contender.attack == one.contender.attack]
        if namesakes:
            rows.append(_row(f"{norm}: {one.contender.attack}", one, namesakes[0]))
    return rows


def _row(name: str, ours: Score, theirs: Score) -> BenchRow:
    """The bar is on the difference in points."""
    note = f"ours: {ours.contender.attack}; theirs: {theirs.contender.attack} of {theirs.contender.library}; "
    note += f"seconds {ours.seconds:.1f}, {theirs.seconds:.1f}; difference in points"
    return BenchRow(
        name,
        ours.optimality,
        theirs.optimality,
        "% optimal",
        ours.optimality - theirs.optimality,
        -NOISE,
        note=note,
    )
