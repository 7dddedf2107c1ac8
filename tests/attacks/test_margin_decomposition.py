"""MD and PMA: steps and terms by hand, networks on which one term sees what the margin does not, and properties."""

import math

import pytest
import torch
from attack_cases import check_independence, check_properties, linear
from torch import nn

from robustforge.attacks.margin_decomposition import MarginDecomposition
from robustforge.attacks.pgd import PGD
from robustforge.defenses.base import classify
from robustforge.types import Threat, UserError

EXACT = {"precision": "float32"}


def test_steps_fall_from_two_radii_to_none_in_each_half():
    attack = MarginDecomposition(steps=9)
    sizes = [attack.step_size(number, 0.1) for number in range(9)]
    first = [0.1 * (1 + math.cos(math.pi * k / 4)) for k in range(4)]
    second = [0.1 * (1 + math.cos(math.pi * k / 5)) for k in range(5)]
    assert sizes == pytest.approx([*first, *second])
    assert sizes[0] == sizes[4] == 0.2


@pytest.mark.parametrize("space", ["logits", "probabilities"])
@pytest.mark.parametrize(("first", "restarts"), [("label", 1), ("rival", 1), ("label", 2)])
@pytest.mark.parametrize("target", [None, 2])
def test_terms_by_hand(space, first, restarts, target):
    """What is raised at each step of each run, seen through the trace of the passes."""
    weight = torch.tensor([[1.0, 0.5], [0.2, -0.3], [-0.4, 0.1]])
    bias = torch.tensor([9.0, 0.0, 0.0])
    surface, x, y = linear(weight, bias), torch.full((1, 1, 1, 2), 0.5), torch.tensor([0])
    seen = []

    class Watched(MarginDecomposition):
        def perturb(self, session, seed):
            inner = session.differentiate

            def differentiate(x, rows, function):
                found = inner(x, rows, function)
                seen.append((x.clone(), found[1][0].clone()))
                return found

            session.differentiate = differentiate
            return super().perturb(session, seed)

    Watched(steps=4, space=space, first=first, restarts=restarts, target=target, **EXACT)(
        surface, x, y, Threat("linf", 0.1)
    )
    terms = [first] if restarts == 1 else [first, "rival"]
    for number, (at, value) in enumerate(seen):
        scores = at.flatten(1) @ weight.T + bias
        scores = scores if space == "logits" else scores.softmax(1)
        aim = 0 if target is None else target
        rival = scores[:, [k for k in range(3) if k != aim]].amax(1)
        parts = {"label": -scores[:, aim], "rival": rival}
        expected = parts[terms[number // 4]] if number % 4 < 2 else parts["label"] + parts["rival"]
        torch.testing.assert_close(value, expected if target is None else -expected)
    assert len(seen) == 4 * restarts


def test_one_term_gets_past_where_the_two_cancel():
    """Pixel 0 moves both logits alike, and only beyond 0.5595, at its corner, does pixel 1 decide: the margin sees nothing."""

    class Net(nn.Module):
        def forward(self, x):
            a, b = x.flatten(1).unbind(1)
            label = torch.relu(6 * (0.5 - a)) + 2.0
            return torch.stack([label, label - 0.4 + torch.where(a > 0.5595, 8 * (b - 0.5), 0 * b)], 1)

    surface = classify(Net())["end_to_end"]
    x, y, threat = torch.full((3, 1, 1, 2), 0.44), torch.zeros(3, dtype=torch.int64), Threat("linf", 0.12)
    assert not PGD(steps=40, loss="margin", **EXACT)(surface, x, y, threat).success.any()
    assert MarginDecomposition(steps=40, **EXACT)(surface, x, y, threat).success.all()
    assert not MarginDecomposition(steps=40, first="rival", **EXACT)(surface, x, y, threat).success.any()
    assert MarginDecomposition(steps=40, first="rival", restarts=2, **EXACT)(surface, x, y, threat).success.all()


def test_the_trace_is_of_the_margin_in_both_halves(victim, images):
    x, y, threat = images[0][:8], images[1][:8], Threat("linf", 0.01)
    one, other = (
        MarginDecomposition(steps=6, first=first, **EXACT)(victim, x, y, threat) for first in ("label", "rival")
    )
    gains = torch.cat([one.trace.loss_gain, other.trace.loss_gain])
    gains = gains[gains.isfinite()]  # of the images that were attacked
    assert len(gains) > 8
    assert (gains >= 0).all()
    assert (gains < 2).all(), "the term that joins in the second half is several logits large"


def test_it_breaks_what_a_scale_hides_from_the_cross_entropy(trained, images):
    class Loud(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = trained

        def forward(self, x):
            return 1e4 * self.network(x)

    surface, (x, y) = classify(Loud())["end_to_end"], images
    threat = Threat("linf", 0.06)
    loud = MarginDecomposition(steps=20, **EXACT)(surface, x, y, threat)
    quiet = MarginDecomposition(steps=20, **EXACT)(classify(trained)["end_to_end"], x, y, threat)
    assert loud.success.sum() > PGD(steps=20, **EXACT)(surface, x, y, threat).success.sum()
    assert torch.equal(loud.success, quiet.success)


@pytest.mark.parametrize("space", ["logits", "probabilities"])
def test_what_every_attack_owes(victim, images, space):
    attack = MarginDecomposition(steps=5, restarts=2, space=space, **EXACT)
    check_properties(attack, shapes=((3, 1, 28, 28), (2, 3, 17, 23)))
    whole = check_independence(
        attack, victim, images[0][:13], images[1][:13], Threat("linf", 0.07), pixels=0.97, sizes=(4,)
    )
    assert whole.success.any()
    assert not whole.success.all()


@pytest.mark.parametrize("settings", [{"steps": 1}, {"restarts": 0}, {"space": "odds"}, {"first": "both"}])
def test_impossible_settings(settings):
    with pytest.raises(UserError):
        MarginDecomposition(**settings)
