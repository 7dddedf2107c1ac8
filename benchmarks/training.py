"""Adversarial training on a CPU: the project's Trainer against a plain float32 loop of torchattacks and torchvision."""

from __future__ import annotations

import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
import torch.nn.functional as F
import torchattacks
from torch import nn
from torchvision.transforms import v2

from benchmarks import BenchRow, _robust_time
from benchmarks._quiet import fit_quietly
from benchmarks.plain_training import plain_loop
from robustforge.accel import fast_bf16
from robustforge.attacks.pgd import PGD
from robustforge.data.augment import Augment
from robustforge.data.datamodule import ImageData
from robustforge.data.resident import unit_pixels
from robustforge.defenses.adversarial_training import AdversarialTraining
from robustforge.defenses.base import classify
from robustforge.defenses.robust_loss import AdversarialLoss
from robustforge.defenses.schedules import constant
from robustforge.defenses.stages import Factory, Training
from robustforge.nn.resnet import resnet18
from robustforge.nn.small_cnn import small_cnn
from robustforge.types import Threat

BATCH, STEPS = 64, 10
WEAKER = 0.95  # least mean loss of our training images over that of theirs


@dataclass(frozen=True)
class Case:
    """One network and data set.

    Attributes:
        name: as printed.
        model: factory of the network.
        shape: (C, H, W) of the images.
        eps: L-infinity budget, [0, 1] pixels.
        augment: ours; ``transforms`` are the same on their side.
        transforms: torchvision's, before the conversion to tensors.
        batches: measured on each side, after one that warms up.
        bar: images/s over theirs.
    """

    name: str
    model: Factory
    shape: tuple[int, int, int]
    eps: float
    augment: Augment
    transforms: tuple[nn.Module, ...]
    batches: int
    bar: float


def cases() -> list[Case]:
    """ResNet-18 at CIFAR-10's size and the small CNN at MNIST's."""
    statistics_of = {"num_classes": 10, "mean": (0.5,), "std": (0.25,)}
    color, gray = (3, 32, 32), (1, 28, 28)
    crop = (v2.RandomCrop(32, 4), v2.RandomHorizontalFlip())
    return [
        Case(
            "ResNet-18, 3x32x32",
            partial(resnet18, shape=color, **statistics_of),
            color,
            8 / 255,
            Augment(crop=4, flip=True),
            crop,
            2,
            4.0,
        ),
        Case("small_cnn, 1x28x28", partial(small_cnn, shape=gray, **statistics_of), gray, 0.3, Augment(), (), 40, 5.0),
    ]


def run() -> list[BenchRow]:
    """Clean images/s of PGD-10 training on 64 clean and 64 attacked images; batches of the two sides take turns.

    Notes:
        Both train the same network with the same loss, optimizer, budget and number of steps. Ours is what ``train.py``
        runs: Lightning's loop, the resident loader, the engine, bf16 where the hardware has it. Images are random: no
        step depends on what they show. The row counts only if our attack is not the weaker one. The rows after them
        measure the time to a robust accuracy: see :func:`benchmarks._robust_time.run`.
    """
    return [*(measure(case) for case in cases()), *_robust_time.run()]


def measure(case: Case) -> BenchRow:
    """Both sides of one case."""
    count = BATCH * (case.batches + 1)
    images = np.random.default_rng(0).integers(0, 256, (count, *case.shape[1:], case.shape[0]), dtype=np.uint8)
    labels = np.random.default_rng(1).integers(0, 10, count).astype(np.uint8)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = plain_loop(case.model(), case.eps, case.transforms, images, labels, BATCH, STEPS)
        turns = Turns(lambda: next(theirs))
        defense = _train(case, images, labels, Path(folder), turns)
    ours, others = (BATCH / statistics.median(side[1:]) for side in (turns.ours, turns.theirs))
    losses = _losses(case, defense.classifier, images[:BATCH], labels[:BATCH])
    precision = "bf16" if fast_bf16(torch.device("cpu")) else "float32"
    note = (
        f"PGD-{STEPS}, {BATCH} clean and {BATCH} attacked, median of {case.batches} batches a side in turns, "
        f"{torch.get_num_threads()} threads, ours {precision}, theirs float32; "
        f"mean loss of the attacked images: ours {losses[0]:.3f}, theirs {losses[1]:.3f}"
    )
    name = f"adversarial training, {case.name}"
    fair = losses[0] >= WEAKER * losses[1]
    return BenchRow(name, ours, others, "images/s", ours / others, case.bar, note=note, valid=fair)


class Turns(pl.Callback):
    """Between two of our batches the other side does one of its own; both are timed.

    Args:
        other: one batch of the other side.

    Attributes:
        ours, theirs: seconds of each batch, everything between two batches included.
    """

    def __init__(self, other: Callable[[], None]) -> None:
        self.other = other
        self.ours: list[float] = []
        self.theirs: list[float] = []
        self._start = 0.0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Starts the clock."""
        self._start = time.perf_counter()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stops it, lets the other side work, starts it again."""
        between = time.perf_counter()
        self.ours.append(between - self._start)
        self.other()
        self._start = time.perf_counter()
        self.theirs.append(self._start - between)


def _train(case: Case, images: np.ndarray, labels: np.ndarray, folder: Path, turns: Turns) -> AdversarialTraining:
    """Our side, as ``train.py defense=adversarial_training defense.robust.clean_weight=0.5`` runs it."""
    np.savez(folder / "random.npz", x_train=images, y_train=labels, x_test=images[:1], y_test=labels[:1])
    data = ImageData(
        name="random",
        kind="npz",
        path=str(folder / "random.npz"),
        shape=case.shape,
        num_classes=10,
        held_out=0,
        batch_size=BATCH,
        augment=case.augment,
    )
    plan = Training(1, partial(torch.optim.SGD, lr=0.01, momentum=0.9), constant)
    robust = AdversarialLoss(PGD(steps=STEPS, early_stop=False), Threat("linf", case.eps), clean_weight=0.5)
    defense = AdversarialTraining(case.model, robust, plan, plan)
    fit_quietly(defense, "classifier", 1, data, turns, folder)
    return defense


def _losses(case: Case, network: nn.Module, images: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Mean cross-entropy of (our, their) attacked images on our trained network."""
    x = unit_pixels(torch.from_numpy(images).permute(0, 3, 1, 2))
    y = torch.from_numpy(labels).long()
    ours = PGD(steps=STEPS, early_stop=False)(classify(network)["end_to_end"], x, y, Threat("linf", case.eps)).x_adv
    theirs = torchattacks.PGD(network, eps=case.eps, alpha=2.5 * case.eps / STEPS, steps=STEPS)(x, y)
    with torch.no_grad():
        return float(F.cross_entropy(network(ours), y)), float(F.cross_entropy(network(theirs), y))
