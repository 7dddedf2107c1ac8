"""What is said when training on a single step has overfitted it."""

import logging
from functools import partial

import pytest
import torch

from robustforge.attacks.fgsm import FGSM
from robustforge.defenses.adversarial_training import AdversarialTraining
from robustforge.defenses.robust_loss import AdversarialLoss
from robustforge.defenses.schedules import constant
from robustforge.defenses.single_step import overfitting
from robustforge.defenses.stages import Training
from robustforge.nn.small_cnn import small_cnn
from robustforge.types import Threat

TRAINING = Training(1, partial(torch.optim.SGD, lr=0.01), constant)
MODEL = partial(small_cnn, shape=(1, 28, 28), num_classes=10, mean=(0.3,), std=(0.3,), widths=(4,), hidden=8)


class Measured(AdversarialTraining):
    """Its held-out numbers are given."""

    numbers = (1.0, 1.0)

    def validate(self, batch):
        trained, stronger = self.numbers
        return {"robust_accuracy": torch.full((len(batch.y),), trained), "pgd_accuracy": torch.full((4,), stronger)}


@pytest.mark.parametrize(("numbers", "said"), [((0.98, 0.0), True), ((0.8, 0.6), False)])
def test_it_is_said_after_the_epoch(run, caplog, numbers, said):
    defense = Measured(MODEL, AdversarialLoss(FGSM(), Threat("linf", 0.1)), TRAINING, TRAINING)
    defense.numbers = numbers
    with caplog.at_level(logging.WARNING, "robustforge"):
        run(defense)
    warning = (
        "classifier, epoch 0: catastrophic overfitting: 98% of the held-out images stand under the training attack"
    )
    assert (warning in caplog.text) == said


def test_other_training_is_not_watched():
    assert overfitting({"robust_accuracy": 0.9}) is None
    assert overfitting({"accuracy": 0.9, "pgd_accuracy": 0.1}) is None
