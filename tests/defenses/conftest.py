"""Tiny defenses on generated images."""

from functools import partial

import pytest
import torch

from robustforge.attacks.pgd import PGD
from robustforge.defenses.memdef import MemoryDefense, SelectorPlan, StackPlan
from robustforge.defenses.schedules import constant
from robustforge.defenses.stages import Training
from robustforge.nn.small_cnn import small_cnn
from robustforge.types import Batch, Threat

TRAINING = Training(2, partial(torch.optim.SGD, lr=0.01), constant)
MODEL = partial(small_cnn, shape=(1, 28, 28), num_classes=10, mean=(0.3,), std=(0.3,), widths=(4, 8), hidden=16)
INNER = PGD(steps=2, early_stop=False)
ADVERSARIAL = {
    "beta": 0.0, "gamma": 10.0, "slot": "selector", "wrong_slot": 0.5, "attack": INNER,
    "threat": Threat("linf", 0.1), "clean_weight": 0.0,
}  # fmt: skip


@pytest.fixture
def training():
    return TRAINING


@pytest.fixture
def model():
    return MODEL


@pytest.fixture
def memdef():
    """memdef(selector="pgd", stack={...}, **changes): a Memory Defense; ``stack="adversarial"`` is the config's."""

    def call(selector="pgd", stack=None, **changes):
        stack = ADVERSARIAL if stack == "adversarial" else stack or {}
        return MemoryDefense(
            MODEL, SelectorPlan(selector, TRAINING, INNER, Threat("linf", 0.1)), StackPlan(TRAINING, **stack), TRAINING,
            **{"shape": (1, 28, 28), "num_classes": 10, "memory_size": 20, **changes},
        )  # fmt: skip

    return call


@pytest.fixture
def batch():
    """16 images whose labels cover all classes, with stored partners."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(16, 1, 28, 28, generator=generator)
    x_adv = (x + 0.05 * torch.randn(x.shape, generator=generator)).clamp(0, 1)
    return Batch(x, torch.arange(16) % 10, torch.arange(40, 56), x_adv)
