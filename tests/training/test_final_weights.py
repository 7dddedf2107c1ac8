"""The best epoch is kept, the average is an average, and both survive a kill."""

from functools import partial

import lightning.pytorch as pl
import pytest
import torch
from torch import nn

from robustforge.defenses.base import Defense
from robustforge.defenses.schedules import constant
from robustforge.defenses.stages import FitStage, Training
from robustforge.types import DefenseOutput

SGD = partial(torch.optim.SGD, lr=0.01)
SCORES = (0.2, 0.7, 0.7, 0.4)  # of the epochs


class Scripted(Defense):
    """A linear classifier whose held-out score is written down in advance; remembers its weights."""

    def __init__(self, best=None, average=None, scores=SCORES, rates=None):
        super().__init__(training=Training(len(scores), SGD, constant))
        torch.manual_seed(0)
        self.network = nn.Sequential(nn.Flatten(), nn.Linear(784, 10), nn.BatchNorm1d(10))
        self.options = {"best": best, "average": average, "rates": rates or {}}
        self.scores, self.trained, self.steps, self.validated = scores, [], [], {}

    def forward(self, x):
        return DefenseOutput(self.network(x))

    def losses(self, batch):
        return {"cross_entropy": nn.functional.cross_entropy(self.network(batch.x), batch.y)}

    def validate(self, batch):
        self.validated[self.current_epoch] = copy(self)
        return {"score": torch.full((len(batch.y),), self.scores[self.current_epoch])}

    def on_train_epoch_end(self):
        self.trained.append(copy(self))

    def stages(self):
        return [
            FitStage("fit", ("network",), self.losses, self.training_settings, validate=self.validate, **self.options)
        ]


class Watch(pl.Callback):
    """Weights after each step."""

    def on_train_batch_end(self, trainer, module, *_):
        module.steps.append(copy(module))


def copy(defense):
    return {name: value.clone() for name, value in defense.network.state_dict().items()}


def same(a, b):
    return all(torch.equal(a[name], b[name].cpu()) for name in a)


def test_the_last_epoch_is_kept_unless_told_otherwise(run):
    defense = run(Scripted()).defense
    assert same(copy(defense), defense.trained[-1])


def test_the_latest_of_the_best_epochs_is_kept(run):
    defense = run(Scripted("score")).defense
    assert same(copy(defense), defense.trained[2])
    assert not same(defense.trained[2], defense.trained[1])
    assert int(defense.network[2].num_batches_tracked) == 9  # three epochs of 3 batches: buffers belong to the epoch


def test_keeping_changes_the_key_and_not_the_training(run):
    last, best = run(Scripted()), run(Scripted("score"))
    assert last.reports[0].key != best.reports[0].key
    for one, two in zip(last.defense.trained, best.defense.trained, strict=True):
        assert same(one, two)


def test_without_held_out_images_the_last_is_kept_and_said(run, caplog):
    with caplog.at_level("WARNING"):
        defense = run(Scripted("score"), held_out=0).defense
    assert same(copy(defense), defense.trained[-1])
    assert "the last one is kept" in caplog.text


def test_the_average_by_hand_is_validated_and_kept(run):
    begin = copy(Scripted())
    defense = run(Scripted(average=0.8), callbacks=[Watch()]).defense
    mean = begin["1.weight"]
    means = []
    for step, weights in enumerate(defense.steps, 1):
        decay = min(0.8, (1 + step) / (10 + step))
        mean = decay * mean + (1 - decay) * weights["1.weight"]
        means.append(mean)
    torch.testing.assert_close(defense.network[1].weight.detach(), means[-1])
    assert len(defense.validated) == 4
    for epoch, seen in defense.validated.items():
        torch.testing.assert_close(seen["1.weight"], means[3 * epoch + 2])
    # the training itself goes on from the trained weights
    assert same(defense.trained[-1], run(Scripted(), store="plain").defense.trained[-1])


def test_the_best_average_is_kept(run):
    defense = run(Scripted("score", 0.8)).defense
    assert same(copy(defense), defense.validated[2])


@pytest.mark.parametrize("options", [{"best": "score"}, {"average": 0.8}, {"best": "score", "average": 0.8}], ids=str)
def test_a_killed_stage_ends_where_the_unbroken_one_does(run, options):
    class Killed(pl.Callback):
        def on_train_epoch_start(self, trainer, module):
            if trainer.current_epoch == 3:  # after the best epoch
                raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        run(Scripted(**options), callbacks=[Killed()])
    broken = run(Scripted(**options)).defense
    assert len(broken.trained) == 1
    assert same(copy(broken), copy(run(Scripted(**options), store="unbroken").defense))


def test_rates_scale_the_learning_rate_of_a_part(run):
    begin = copy(Scripted())
    scores = (0.1,)
    plain = run(Scripted(scores=scores), callbacks=[Watch()]).defense.steps[0]
    scaled = run(Scripted(scores=scores, rates={"network.2": 0.0}), store="scaled", callbacks=[Watch()]).defense.steps[
        0
    ]
    assert same({"w": plain["1.weight"]}, {"w": scaled["1.weight"]})
    assert torch.equal(scaled["2.weight"], begin["2.weight"])
    assert not torch.equal(plain["2.weight"], begin["2.weight"])
