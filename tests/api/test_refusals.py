"""What makes no sense is refused where it enters, in one sentence, the same for every attack."""

import numpy as np
import owned
import pytest
import torch
import torch.nn.functional as F

import robustforge as rf
from robustforge.attacks.core.inputs import check_answer

ATTACKS = ("fgsm", "pgd", "apgd_ce", "deepfool", "carlini_wagner", "square", "jsma", "fmn", "worst_case", "none")
X, Y = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 9])


@pytest.fixture(scope="module")
def net():
    return owned.trained(0)


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (X * 255, Y, r"must lie in \[0, 1\]"),
        (X - 0.5, Y, r"must lie in \[0, 1\]"),
        (torch.where(X > 0.9, float("nan"), X), Y, r"must lie in \[0, 1\]"),
        (X, Y - 1, "numbered from 0, and one of these is -1"),
        (X, Y + 1, "A label is 10, and the model answers 10 logits"),
        (X, Y.float(), "Labels must be integers"),
        (X, F.one_hot(Y, 10), "one-hot"),
        (X, Y[:3], "one for each of the 4 images"),
    ],
    ids=["255", "negative", "nan", "-1", "K", "float", "one_hot", "short"],
)
def test_images_and_labels(net, name, x, y, message):
    with pytest.raises(rf.UserError, match=message):
        rf.attack(net, x, y, name, eps=0.1)


@pytest.mark.parametrize("kind", [rf.attacks.PGD, rf.attacks.NoAttack, rf.attacks.CarliniWagner])
def test_attack_objects_say_the_same(net, kind):
    with pytest.raises(rf.UserError, match="A label is 10, and the model answers 10 logits"):
        kind()(net, X, Y + 1, 0.1)
    with pytest.raises(rf.UserError, match="numbered from 0"):
        kind()(net, X, Y - 1, 0.1)
    with pytest.raises(rf.UserError, match="one value an image"):
        kind()(lambda x: net(x)[:, :1], X, torch.zeros(4, dtype=torch.long), 0.1)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (X[0], r"x\[None\] for one image"),
        (X[:0], "no images"),
        ((X > 0.5).to(torch.uint8), "hold 0 and 1"),
        (X > 0.5, "must be float"),
        ("images", "tensor or an array"),
        (np.array([[1, 2], [3, 4]]), "must be float"),
    ],
    ids=["3-d", "none", "zeros and ones", "bool", "text", "2-d"],
)
def test_images_of_other_kinds(net, x, message):
    with pytest.raises(rf.UserError, match=message):
        rf.attack(net, x, Y, eps=0.1)


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda x: x.flatten(1)[:, :1], "one value an image.*torch.nn.functional.pad"),
        (lambda x: x.mean((1, 2, 3)), "one value an image"),
        (lambda x: x, r"must answer \(\d+, K\) logits"),
        (lambda x: x.flatten(1).argmax(1), "must answer float logits"),
        (lambda x: x.flatten(1)[:1].repeat(3, 1), r"must answer \(\d+, K\) logits"),
        (lambda x: "yes", "say where the logits are"),
        (lambda x: x.flatten(1) * float("inf"), "not finite"),
    ],
    ids=["one logit", "flat", "images", "classes", "other batch", "text", "infinite"],
)
def test_answers(model, message, name):
    with pytest.raises(rf.UserError, match=message):
        rf.attack(model, X, Y, name, eps=0.1)


def test_the_advice_for_one_logit_works():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 1))
    two = eval("lambda x: torch.nn.functional.pad(model(x).view(-1, 1), (1, 0))", {"torch": torch, "model": model})
    assert torch.equal(two(X).argmax(1), (model(X)[:, 0] > 0).long())
    with pytest.raises(rf.UserError) as error:
        check_answer(model(X), 4)
    assert "lambda x: torch.nn.functional.pad(model(x).view(-1, 1), (1, 0))" in str(error.value)
    assert rf.attack(two, X, two(X).argmax(1), "pgd", eps=0.5).success.all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda net: rf.attack(net, X, Y, "pgg", eps=0.1), "did you mean 'pgd'"),
        (lambda net: rf.attack(net, X, Y, "torchattacks/AGPD", eps=0.1), "did you mean 'torchattacks/APGD'"),
        (lambda net: rf.attack(net, X, Y, "pgd", eps=0.1, stpes=3), "did you mean 'steps'"),
        (lambda net: rf.attack(net, X, Y, rf.attacks.PGD(), eps=0.1, stpes=3), "did you mean 'steps'"),
        (lambda net: rf.attack(net, X, Y, "pgd", eps=0.1, steps=0), "at least 1"),
        (lambda net: rf.attack(net, X, Y, "pgd", eps="8/0"), "'8/0' is no radius"),
        (lambda net: rf.attack(net, X, Y, "pgd", eps=8), "between 0 and 1 for linf"),
        (lambda net: rf.attack(net, X, Y, "pgd", eps=1, norm="l3"), "choose one of linf, l2"),
        (lambda net: rf.attack(net, X, Y, 3, eps=0.1), "a name or an attack object"),
        (lambda net: rf.evaluate(net, (X, Y), eps=0.1, protocol="standrad"), "did you mean 'standard'"),
        (lambda net: rf.evaluate(net, (X, Y), eps=0.1, n_tests=3), "did you mean 'n_test'"),
        (lambda net: rf.evaluate(net, (X, Y), eps=0.1, n_test=0), "give a whole number of at least 1"),
        (lambda net: rf.evaluate(net, (X, Y)), "Say how far"),
        (lambda net: rf.evaluate(net, (X, Y), eps=0.1, overrides=["attack.step=3"]), "attack.step"),
        (lambda net: rf.evaluate(net, X, eps=0.1), "Data must be"),
        (lambda net: rf.evaluate(net, "digtis", eps=0.1), "did you mean 'digits'"),
        (lambda net: rf.evaluate(net, (X, Y), eps=0.1, false_positive_rate=0.1), "give calibration"),
    ],
)
def test_names_and_settings(net, call, message):
    with pytest.raises(rf.UserError, match=message):
        call(net)


def test_fractions_are_radii(net):
    for eps in ("8/255", " 8 / 255 ", 8 / 255):
        assert rf.Threat("linf", eps).eps == 8 / 255
    one = rf.attack(net, X, Y, "pgd", eps="8/255", steps=3, step_size="2/255")
    assert torch.equal(one.x_adv, rf.attack(net, X, Y, rf.attacks.PGD(steps=3, step_size=2 / 255), eps=8 / 255).x_adv)


def test_fractions_are_budgets_on_the_command_line(compose):
    from robustforge.config.instantiate import build

    assert build(compose("threat.eps=8/255").threat).eps == 8 / 255
    cfg = compose("dataset.eps=8/255")
    assert build(cfg.threat).eps == build(cfg.dataset).eps == 8 / 255
