"""Classifier-A's robust copy: which stored images it sees, by which loss it is trained, and which epoch is kept."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from robustforge.defenses.memdef.objective import selector_terms
from robustforge.types import Batch


def test_successes_alone_are_trained_on(memdef, batch):
    defense = memdef("offline").eval()
    answers = defense.undefended(batch.x_adv).argmax(1)
    labels = torch.where(torch.arange(16) < 5, (answers + 1) % 10, answers)  # the first five are successes
    batch = Batch(batch.x, labels, batch.index, batch.x_adv)
    settings = replace(defense.selector_settings, successful_only=True)
    terms = selector_terms(defense.selector, defense.undefended, settings, batch, 0)
    torch.testing.assert_close(terms["clean"], 0.5 * F.cross_entropy(defense.selector(batch.x), labels))
    right = 0.5 * F.cross_entropy(defense.selector(batch.x_adv[:5]), labels[:5])
    torch.testing.assert_close(terms["adversarial"], right)
    none = Batch(batch.x, answers, batch.index, batch.x_adv)
    assert selector_terms(defense.selector, defense.undefended, settings, none, 0)["adversarial"] == 0


@pytest.mark.parametrize(("loss", "names"), [("trades", {"clean", "divergence"}), ("mart", {"mart"})])
def test_the_robust_loss_is_a_choice(memdef, batch, loss, names):
    defense = memdef("pgd")
    settings = replace(defense.selector_settings, loss=loss, beta=3.0)
    assert (settings.robust.loss, settings.robust.beta) == (loss, 3.0)
    assert set(selector_terms(defense.selector, defense.undefended, settings, batch, 0)) == names


def test_the_best_epoch_is_kept_where_examples_are_made_on_the_fly(memdef):
    assert {stage.name: stage.best for stage in memdef("pgd").stages()}["selector"] == "robust_accuracy"
    offline = {stage.name: getattr(stage, "best", None) for stage in memdef("offline").stages()}
    assert set(offline.values()) == {None}
    assert replace(memdef("pgd").selector_settings, keep_best=False).best is None


def test_erasing_is_classifier_as_alone(memdef):
    assert {s.name: s.erasing for s in memdef("pgd").stages()} == {"undefended": True, "selector": True, "stack": False}
