import math

import numpy as np
import pytest
import torch

from robustforge.defenses.memdef.losses import address_entropy, memory_defense_terms
from robustforge.defenses.memdef.stack import StackOutput
from robustforge.losses.classification import cross_entropy_per_sample, dlr, dlr_targeted, margin, margin_targeted
from robustforge.losses.robust import boosted_cross_entropy, mart_loss, trades_kl

LOGITS = torch.tensor([[2.0, -1.0, 0.5, 0.0], [0.0, 1.0, 3.0, 2.0]])
Y = torch.tensor([0, 1])


def softmax(z):
    e = np.exp(np.asarray(z, dtype=np.float64))
    return e / e.sum(1, keepdims=True)


def test_margin_by_hand():
    assert margin(LOGITS, Y).tolist() == [-1.5, 2.0]


def test_dlr_by_hand_and_invariant():
    expected = torch.tensor([-1.5 / 2.0, 2.0 / 2.0])  # pi1 - pi3: 2 - 0 and 3 - 1
    torch.testing.assert_close(dlr(LOGITS, Y), expected)
    torch.testing.assert_close(dlr(7 * LOGITS + 3, Y), expected)
    assert dlr(torch.ones(2, 4), Y).tolist() == [0, 0]
    with pytest.raises(ValueError, match="three classes"):
        dlr(LOGITS[:, :2], Y)


def test_cross_entropy_by_hand():
    p = softmax(LOGITS)
    np.testing.assert_allclose(cross_entropy_per_sample(LOGITS, Y), -np.log(p[[0, 1], [0, 1]]), rtol=1e-6)


def test_trades_by_formula():
    torch.manual_seed(0)
    adv, clean = torch.randn(5, 4), torch.randn(5, 4)
    p, q = softmax(clean), softmax(adv)
    np.testing.assert_allclose(trades_kl(adv, clean), (p * np.log(p / q)).sum(1), rtol=1e-4)
    torch.testing.assert_close(trades_kl(clean, clean), torch.zeros(5))


def test_mart_by_formula():
    torch.manual_seed(0)
    clean, adv, y = torch.randn(5, 4), torch.randn(5, 4), torch.randint(0, 4, (5,))
    p, q, i = softmax(clean), softmax(adv), np.arange(5)
    wrong = q.copy()
    wrong[i, y] = 0
    boosted = -np.log(q[i, y]) - np.log(1 - wrong.max(1))
    np.testing.assert_allclose(boosted_cross_entropy(adv, y), boosted, rtol=1e-5)
    kl = (p * np.log(p / q)).sum(1)
    expected = (boosted + 3.0 * kl * (1 - p[i, y])).mean()
    assert mart_loss(clean, adv, y, 3.0).item() == pytest.approx(expected, rel=1e-5)


def test_boosted_cross_entropy_has_a_gradient_where_probabilities_saturate():
    logits = torch.tensor([[0.0, 60.0, 0.0]], requires_grad=True)
    loss = boosted_cross_entropy(logits, torch.tensor([0]))
    assert loss.item() == pytest.approx(60 + 60 - math.log(2), rel=1e-6)
    loss.sum().backward()
    assert logits.grad[0, 1].item() == pytest.approx(2.0)


def test_entropy():
    w = torch.tensor([[0.5, 0.5, 0.0, 0.0], [0.25] * 4, [1.0, 0.0, 0.0, 0.0]], requires_grad=True)
    entropy = address_entropy(w)
    torch.testing.assert_close(entropy, torch.tensor([math.log(2), math.log(4), 0.0]))
    entropy.sum().backward()
    assert w.grad.isfinite().all()
    assert w.grad[0, 2] == 0


def test_memory_defense_terms_by_hand():
    x, rebuilt, other = torch.zeros(2, 1, 2, 2), torch.zeros(2, 1, 2, 2), torch.zeros(2, 1, 2, 2)
    rebuilt[0], rebuilt[1, 0, 0, 0] = 0.5, 1.0  # squared sums 1 and 1
    other[0] = 2.0  # mean squared 4 and 0, together 2
    w, v = torch.tensor([[0.5, 0.5], [1.0, 0.0]]), torch.tensor([[0.5, 0.5], [0.5, 0.5]])
    output = StackOutput(LOGITS, rebuilt, w, other, v)
    terms = memory_defense_terms(output, x, Y, alpha=0.1, beta=0.2, gamma=3.0, num_classes=4)
    assert terms["reconstruction"].item() == pytest.approx(1.0)
    assert terms["entropy"].item() == pytest.approx(0.1 * math.log(2) / 2)
    inside = (2.0 + 0.1 * math.log(2)) / 3
    assert terms["non_target"].item() == pytest.approx(-0.2 / (1 + math.exp(-inside)))
    ce = -np.log(softmax(LOGITS)[[0, 1], [0, 1]]).mean()
    assert terms["classification"].item() == pytest.approx(3 * ce, rel=1e-6)


def test_memory_defense_terms_without_memory():
    x = torch.rand(2, 1, 2, 2)
    assert set(memory_defense_terms(StackOutput(LOGITS, x), x, Y)) == {"classification", "reconstruction"}


def test_targeted_losses_by_hand():
    logits = torch.tensor([[5.0, 3.0, 2.0, -1.0], [0.0, 4.0, 1.0, 3.0]])
    y, target = torch.tensor([0, 3]), torch.tensor([2, 1])
    torch.testing.assert_close(margin_targeted(logits, y, target), torch.tensor([-3.0, 1.0]))
    # spreads: 5 - (2 - 1) / 2 and 4 - (1 + 0) / 2
    expected = torch.tensor([-3 / 4.5, 1 / 3.5])
    torch.testing.assert_close(dlr_targeted(logits, y, target), expected)
    torch.testing.assert_close(dlr_targeted(7 * logits + 3, y, target), expected)
    assert dlr_targeted(torch.ones(2, 4), y, target).tolist() == [0, 0]
    with pytest.raises(ValueError, match="needs four classes"):
        dlr_targeted(logits[:, :3], torch.tensor([0, 1]), torch.tensor([2, 0]))
