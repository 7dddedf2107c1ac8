"""A trained classifier with a risk, on digits, and evaluations of it."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F

from robustforge.attacks.pgd import PGD
from robustforge.data.datamodule import ImageData
from robustforge.defenses.base import Defense, classify
from robustforge.evaluation.protocol import Protocol, Suite
from robustforge.evaluation.runner import Evaluation
from robustforge.nn.small_cnn import small_cnn
from robustforge.types import DefenseOutput, Threat


class Detector(Defense):
    """Calls an image risky when its prediction is unsure."""

    def __init__(self):
        super().__init__()
        self.body = small_cnn((1, 28, 28), 10, (0.3,), (0.3,), (8, 16), 32)

    def forward(self, x):
        logits = self.body(x)
        return DefenseOutput(logits, 1 - logits.softmax(1).amax(1), x * 0.5)

    def systems(self):
        return {"undefended": classify(self.body)}

    def diagnostics(self, batch):
        return {"brightness": batch.x.flatten(1).mean(1)}


@dataclass(frozen=True)
class Watched:
    """PGD that counts its calls, and may die."""

    name: str = "watched"
    steps: int = 3
    calls: ClassVar[list] = []
    dies_at: ClassVar[int | None] = None

    def __call__(self, surface, x, y, threat, *, index=None, seed=0, threshold=None):
        if Watched.dies_at == len(Watched.calls):
            raise KeyboardInterrupt
        Watched.calls.append((surface.name, threat.eps, index.tolist(), seed, threshold))
        return PGD(steps=self.steps)(surface, x, y, threat, index=index, seed=seed, threshold=threshold)


@pytest.fixture
def watched():
    Watched.calls.clear()
    Watched.dies_at = None
    yield Watched
    Watched.dies_at = None


@pytest.fixture(scope="session")
def data():
    made = ImageData("digits", "digits", (1, 28, 28), 10, limit_test=50, eval_batch_size=20)
    made.setup()
    return made


@pytest.fixture(scope="session")
def defense(data):
    torch.manual_seed(0)
    made = Detector()
    optimizer = torch.optim.Adam(made.parameters(), lr=4e-3)
    x, y = data.train.images.float() / 255, data.train.labels
    for _ in range(4):
        for rows in torch.randperm(len(y)).split(64):
            optimizer.zero_grad()
            F.cross_entropy(made.body(x[rows]), y[rows]).backward()
            optimizer.step()
    return made.eval()


@pytest.fixture
def evaluate(defense, data, tmp_path, watched):
    """evaluate(folder="run", data=..., overwrite=False, **protocol): an Evaluation, ready to run."""

    def call(folder="run", data=data, defense=defense, cells=None, overwrite=False, **changed):
        protocol = Protocol(**{
            "name": "test", "suites": {"all": Suite({"a": Watched()})},
            "budgets": (Threat("linf", 0.05), Threat("linf", 0.15)), **changed,
        })  # fmt: skip
        return Evaluation(
            name="detector", defense=defense, data=data, protocol=protocol, folder=tmp_path / folder,
            cells=tmp_path / (cells or folder) / "cells", stages={"body": "k" * 64}, overwrite=overwrite,
            device=torch.device("cpu"), quiet=True,
        )  # fmt: skip

    return call
