"""How long adversarial training takes to a robust accuracy: ours on single steps against a plain PGD-10 loop."""

from __future__ import annotations

import copy
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import torch
from torch import nn

from benchmarks import BenchRow, say
from benchmarks._quiet import fit_quietly
from benchmarks.auto_fast import auto_fast
from benchmarks.plain_training import plain_loop
from robustforge.attacks.pgd import PGD
from robustforge.data.datamodule import ImageData
from robustforge.data.resident import unit_pixels
from robustforge.data.sources import digits
from robustforge.defenses.adversarial_training import AdversarialTraining
from robustforge.defenses.base import classify
from robustforge.defenses.robust_loss import AdversarialLoss
from robustforge.defenses.schedules import constant
from robustforge.defenses.stages import Factory, Training
from robustforge.nn.resnet import resnet18
from robustforge.nn.small_cnn import small_cnn
from robustforge.types import Threat

BATCH, STEPS = 64, 10
LONGEST = 5  # times as many epochs as the plain loop's, which ours may take: each costs it a fraction


@dataclass(frozen=True)
class Race:
    """One network on the digits.

    Attributes:
        name: as printed.
        model: factory of the network.
        shape: (C, H, W) of the images.
        eps: L-infinity budget, [0, 1] pixels.
        epochs: of the plain loop.
        judged: first test images, by which robust accuracy is measured.
        bar: its seconds over ours.
    """

    name: str
    model: Factory
    shape: tuple[int, int, int]
    eps: float
    epochs: int
    judged: int
    bar: float


def races() -> list[Race]:
    """The small CNN, and ResNet-18 on images that two cores train it on in minutes."""
    statistics = {"num_classes": 10, "mean": (0.3,), "std": (0.3,)}
    gray, color = (1, 28, 28), (3, 16, 16)
    return [
        Race("small_cnn, 1x28x28", partial(small_cnn, shape=gray, **statistics), gray, 0.1, 8, 200, 2.0),
        Race("ResNet-18, 3x16x16", partial(resnet18, shape=color, **statistics), color, 0.05, 3, 100, 3.0),
    ]


def run() -> list[BenchRow]:
    """Seconds of training until ours has the robust accuracy that the plain loop ends with.

    Notes:
        Both train on 64 clean and 64 attacked digits a batch, by SGD at one learning rate, from fresh weights. The
        plain loop's attack is torchattacks' PGD-10 in float32; ours N-FGSM, one step, in bf16 where the hardware has
        it. Robust accuracy is what auto_fast leaves of the first test images; its time counts on neither side.
    """
    return [race(one) for one in races()]


def race(one: Race) -> BenchRow:
    """Both sides of one network."""
    name = f"time to robust accuracy, {one.name}"
    say(name)
    raw = {key: _sized(values, one.shape) for key, values in digits((1, *one.shape[1:])).items()}
    theirs = one.model()
    loop = plain_loop(theirs, one.eps, (), raw["x_train"], raw["y_train"], BATCH, STEPS)
    next(loop)  # its workers start
    start = time.perf_counter()
    for _ in range(one.epochs * -(-len(raw["y_train"]) // BATCH)):
        next(loop)
    plain = time.perf_counter() - start

    def standing(network: nn.Module, least: float = 0.0) -> float:
        """Robust accuracy of the first test images, or what PGD leaves of them where that alone is below ``least``."""
        x = unit_pixels(torch.from_numpy(raw["x_test"][: one.judged]).permute(0, 3, 1, 2))
        y = torch.from_numpy(raw["y_test"][: one.judged])
        surface = classify(network.eval())["end_to_end"]
        for attack in (PGD(steps=STEPS), auto_fast()):
            left = 1 - float(attack(surface, x, y, Threat("linf", one.eps)).success.float().mean())
            if left < least:
                break
        return left

    clock = Clock(standing, target=standing(theirs))
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _train(one, raw, Path(folder), clock)
    note = (
        f"robust accuracy under auto_fast (L-infinity {one.eps}, {one.judged} digits): theirs {clock.target:.1%} after "
        f"{one.epochs} epochs of PGD-{STEPS}, ours {clock.reached:.1%} after {clock.epochs} of N-FGSM; "
        f"{torch.get_num_threads()} threads"
    )
    seconds, fair = clock.seconds, clock.reached >= clock.target
    return BenchRow(name, plain, seconds, "s (theirs, ours)", plain / seconds, one.bar, note=note, valid=fair)


class Clock(pl.Callback):
    """Stops training at a robust accuracy; its measurement takes no time.

    Args:
        standing: (network, target) -> robust accuracy, or something below the target.
        target: where to stop.

    Attributes:
        seconds: of training so far.
        epochs: so far.
        reached: robust accuracy after the last one.
    """

    def __init__(self, standing: Callable[[nn.Module, float], float], target: float) -> None:
        self.standing, self.target = standing, target
        self.seconds, self.epochs, self.reached, self._start = 0.0, 0, 0.0, 0.0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Starts the clock."""
        self._start = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stops it, and training where the target is reached."""
        self.seconds += time.perf_counter() - self._start
        self.epochs += 1
        network = copy.deepcopy(pl_module.classifier)
        self.reached = self.standing(network, self.target)
        say(f"epoch {self.epochs}: {self.reached:.1%} of {self.target:.1%}, {self.seconds:.1f} s")
        trainer.should_stop = self.reached >= self.target


def _train(one: Race, raw: dict[str, np.ndarray], folder: Path, clock: Clock) -> None:
    """Our side: ``train.py defense=adversarial_training`` with ``examples=n_fgsm clean_weight=0.5``."""
    np.savez(folder / "digits.npz", **raw)
    data = ImageData(
        name="digits", kind="npz", path=str(folder / "digits.npz"), shape=one.shape, num_classes=10, held_out=0,
        batch_size=BATCH,
    )  # fmt: skip
    plan = Training(LONGEST * one.epochs, partial(torch.optim.SGD, lr=0.01, momentum=0.9), constant)
    robust = AdversarialLoss(PGD(), Threat("linf", one.eps), clean_weight=0.5, examples="n_fgsm")
    defense = AdversarialTraining(one.model, robust, plan, plan)
    fit_quietly(defense, "classifier", LONGEST * one.epochs, data, clock, folder)


def _sized(values: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """Images (N, 1, H, W) as (N, H, W, C); labels as they are."""
    return values if values.ndim == 1 else np.repeat(values.transpose(0, 2, 3, 1), shape[0], axis=3)
