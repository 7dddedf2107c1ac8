"""May ``auto_fast`` stand for ``auto``? The admission test: exact McNemar tests on five victims of the digits.

Plain, adversarially trained, TRADES, a purifier (a denoiser before the plain classifier) and a rejecting system (the
adversarially trained one, which refuses the images of lowest confidence). ``auto_fast`` was put together on other
networks, those of ``victims(held_out=True)``, and never on these.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks import BenchRow, say
from benchmarks.attacks import auto, auto_fast
from robustforge.attacks.core.attack import Attack
from robustforge.attacks.core.surface import Surface, end_to_end
from robustforge.attacks.pgd import PGD
from robustforge.data.datamodule import ImageData
from robustforge.data.resident import unit_pixels
from robustforge.defenses.robust_loss import AdversarialLoss
from robustforge.evaluation.columns import member_columns
from robustforge.nn.small_cnn import small_cnn
from robustforge.records.members import member_facts, member_words
from robustforge.records.statistics import mcnemar
from robustforge.types import AttackResult, Batch, DefenseOutput, Threat

POINTS = 0.5  # of robust accuracy that auto_fast may leave more than auto
REFUSED = 0.05  # share of the clean training images that the rejecting victim refuses
THREAT = Threat("linf", 0.1)
_EPOCHS = 8


@dataclass(frozen=True)
class System:
    """A victim of the admission test.

    Attributes:
        name: as printed.
        surface: what is attacked.
        x: (N, 1, 28, 28) test images.
        y: (N,) labels.
        threshold: risk above which it rejects, or None.
    """

    name: str
    surface: Surface
    x: Tensor
    y: Tensor
    threshold: float | None = None


def run() -> list[BenchRow]:
    """One row a victim; the bar is on the difference in points."""
    return [compare(system, auto_fast(), auto()) for system in victims()]


def compare(system: System, fast: Attack, whole: Attack) -> BenchRow:
    """What both leave of one victim, the discordant images, and what they spend."""
    say(system.name)
    (mine, seconds), (theirs, their_seconds) = (_attacked(attack, system) for attack in (fast, whole))
    only_theirs = int((theirs.success & ~mine.success).sum())
    only_mine = int((mine.success & ~theirs.success).sum())
    left, their_left = (100 * float((~result.success).float().mean()) for result in (mine, theirs))
    passes, their_passes = (float((r.forwards + r.backwards).float().mean()) for r in (mine, theirs))
    note = (
        f"{len(system.x)} images; broken by auto alone {only_theirs}, by auto_fast alone {only_mine}, exact McNemar "
        f"p {mcnemar(only_theirs, only_mine):.3g}; passes an image {passes:.0f} against {their_passes:.0f} "
        f"({their_passes / passes:.1f}x); {seconds:.0f} s against {their_seconds:.0f} s; "
        f"per 1,000 passes: {_members(mine)}"
    )
    return BenchRow(
        system.name, left, their_left, "% robust", left - their_left, POINTS, higher_is_better=False, note=note
    )


def victims(held_out: bool = False, data: ImageData | None = None) -> list[System]:
    """The five systems, or five others of the same kinds (other seed, narrower) on which to try ensembles out.

    Args:
        held_out: the others.
        data: gray 28 x 28 images of ten classes; the digits by default.
    """
    seed, widths = (100, (12, 24)) if held_out else (0, (16, 32))
    data = data or ImageData(name="digits", kind="digits", shape=(1, 28, 28), num_classes=10)
    data.setup()
    train, y = unit_pixels(data.train.images), data.train.labels
    plain, madry, trades = (_trained(kind, train, y, seed, widths) for kind in ("clean", "madry", "trades"))
    purifier = _denoiser(train, seed)
    test = unit_pixels(data.test.images), data.test.labels
    with torch.no_grad():
        threshold = float(_unsure(madry(train)).quantile(1 - REFUSED))

    def refusing(x: Tensor) -> DefenseOutput:
        logits = madry(x)
        return DefenseOutput(logits, risk=_unsure(logits))

    both = nn.ModuleList([purifier, plain])
    return [
        System("plain", _surface(plain), *test),
        System("adversarially trained", _surface(madry), *test),
        System("TRADES", _surface(trades), *test),
        System("purifier", end_to_end(lambda x: DefenseOutput(plain(purifier(x).clamp(0, 1))), both), *test),
        System("rejecting", end_to_end(refusing, madry), *test, threshold),
    ]


def _surface(network: nn.Module) -> Surface:
    return end_to_end(lambda x: DefenseOutput(network(x)), network)


def _unsure(logits: Tensor) -> Tensor:
    return 1 - logits.float().softmax(1).amax(1)


def _attacked(attack: Attack, system: System) -> tuple[AttackResult, float]:
    started = time.perf_counter()
    result = attack(system.surface, system.x, system.y, THREAT, threshold=system.threshold)
    return result, time.perf_counter() - started


def _members(result: AttackResult) -> str:
    return member_words(member_facts([member_columns(result)]))


def _trained(kind: str, x: Tensor, y: Tensor, seed: int, widths: tuple[int, int]) -> nn.Module:
    """Adam on clean images, or one clean epoch and then the robust loss on five steps of PGD."""
    torch.manual_seed(seed)
    network = small_cnn((1, 28, 28), 10, (0.3,), (0.3,), widths, 64)
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    loss = AdversarialLoss(PGD(steps=5, early_stop=False), THREAT, loss="trades" if kind == "trades" else "madry")
    for epoch in range(_EPOCHS):
        network.train()
        for rows in torch.randperm(len(y)).split(64):
            batch = Batch(x[rows], y[rows], rows)
            robust = epoch > 0 and kind != "clean"
            terms = loss.terms(network, batch, epoch) if robust else {"c": F.cross_entropy(network(batch.x), batch.y)}
            optimizer.zero_grad()
            torch.stack(list(terms.values())).sum().backward()
            optimizer.step()
    return network.eval()


def _denoiser(x: Tensor, seed: int) -> nn.Module:
    """A small convolutional denoiser of Gaussian noise."""
    torch.manual_seed(seed + 1)
    network = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 1, 3, padding=1),
    )
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    for _ in range(_EPOCHS):
        for rows in torch.randperm(len(x)).split(64):
            noisy = (x[rows] + 0.15 * torch.randn_like(x[rows])).clamp(0, 1)
            optimizer.zero_grad()
            F.mse_loss(network(noisy), x[rows]).backward()
            optimizer.step()
    return network.eval()
