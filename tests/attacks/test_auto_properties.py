"""What APGD, FAB-T, Square and their worst case have in common: budgets, judging, and answers free of the batch."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robustforge.attacks.apgd import APGD
from robustforge.attacks.core.surface import Surface
from robustforge.attacks.ensemble import WorstCase
from robustforge.attacks.fab import FAB
from robustforge.attacks.square import Square
from robustforge.defenses.base import classify
from robustforge.nn.small_cnn import small_cnn
from robustforge.types import DefenseOutput, Threat

SHAPES = [(5, 1, 28, 28), (4, 3, 32, 32), (1, 1, 28, 28), (3, 3, 17, 23)]
EXACT = {"precision": "float32"}
PARTS = [
    APGD("ce", steps=9, restarts=2, **EXACT), APGD("t", steps=9, loss="dlr", n_target_classes=3, restarts=2, **EXACT),
    APGD("give up", steps=30, loss="margin", give_up=True, **EXACT), FAB(steps=4, restarts=2, n_target_classes=3, **EXACT),
    FAB("fab give up", steps=12, n_target_classes=2, give_up=True, **EXACT), Square(n_queries=90, restarts=2),
    Square("square give up", n_queries=620, give_up=True),
]  # fmt: skip
ATTACKS = [
    *PARTS[:6],
    WorstCase("worst", {"a": PARTS[0], "b": PARTS[3], "c": PARTS[5]}),
    APGD("bf16", steps=4, precision="bf16"),
]
NETWORKS = {}


def attacked(shape, seed=0):
    """A random network, images with many pixels at exactly 0 and 1, and labels that the network gets right."""
    key = shape[1:]
    if key not in NETWORKS:
        torch.manual_seed(1)
        NETWORKS[key] = small_cnn(shape[1:], 10, (0.5,) * shape[1], (0.25,) * shape[1], (4, 8), 16).eval()
    x = torch.rand(shape, generator=torch.Generator().manual_seed(seed)).mul(1.6).sub(0.3).clamp(0, 1)
    return classify(NETWORKS[key])["end_to_end"], x, NETWORKS[key](x).argmax(1)


@settings(max_examples=20, deadline=None)
@given(
    attack=st.sampled_from(ATTACKS), shape=st.sampled_from(SHAPES), norm=st.sampled_from(["linf", "l2"]),
    share=st.floats(0, 0.3), seed=st.integers(0, 1000),
)  # fmt: skip
def test_results_respect_the_budget_and_are_judged_as_returned(attack, shape, norm, share, seed):
    surface, x, y = attacked(shape, seed)
    eps = share if norm == "linf" else 20 * share
    before = x.clone()
    result = attack(surface, x, y, Threat(norm, eps), seed=seed)
    assert torch.equal(x, before)
    assert result.x_adv.dtype == torch.float32
    assert result.x_adv.isfinite().all()
    assert result.x_adv.min() >= 0
    assert result.x_adv.max() <= 1
    delta = (result.x_adv - x).double().flatten(1)
    distance = delta.abs().amax(1) if norm == "linf" else delta.norm(dim=1)
    assert (distance <= eps + 1e-5 * max(1, eps)).all()
    assert torch.equal(result.success, surface.system(result.x_adv, y).logits.argmax(1) != y)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_no_budget_is_the_identity_and_what_is_wrong_already_costs_nothing(attack, norm):
    surface, x, y = attacked((5, 1, 28, 28))
    result = attack(surface, x, y, Threat(norm, 0.0))
    assert torch.equal(result.x_adv, x)
    assert not result.success.any()
    assert result.backwards.sum() == 0
    y = (y + torch.tensor([1, 0, 0, 0, 0])) % 10
    result = attack(surface, x, y, Threat(norm, 0.1))
    assert result.success[0]
    assert torch.equal(result.x_adv[0], x[0])
    assert result.backwards[0] == 0
    assert result.forwards[0] <= 1  # choosing target classes looks at every image


@pytest.mark.parametrize("attack", PARTS[:6], ids=lambda attack: attack.name)
@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.09), ("l2", 1.5)])
def test_batch_size_and_order_do_not_matter(victim, images, attack, norm, eps):
    x, y = images[0][:13], images[1][:13]
    index, threat = torch.arange(100, 113), Threat(norm, eps)
    whole = attack(victim, x, y, threat, index=index, seed=3)
    assert whole.success.any()
    assert not whole.success.all()
    parts = [
        attack(victim, *part[:2], threat, index=part[2], seed=3)
        for part in zip(x.split(4), y.split(4), index.split(4), strict=True)
    ]
    joined = torch.cat([part.x_adv for part in parts])
    # a sum in another order may flip the sign of a gradient, or a proposal's fate, that is all but zero: a float tie
    assert ((joined - whole.x_adv).abs() < 1e-5).float().mean() > 0.97
    assert torch.equal(torch.cat([part.success for part in parts]), whole.success)
    back = attack(victim, x.flip(0), y.flip(0), threat, index=index.flip(0), seed=3)
    assert ((back.x_adv.flip(0) - whole.x_adv).abs() < 1e-5).float().mean() > 0.97
    assert torch.equal(back.success.flip(0), whole.success)


@pytest.mark.parametrize("attack", PARTS, ids=lambda attack: attack.name)
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_constant_logits(attack, norm):
    constant = torch.tensor([0.0, 2.0, 1.0, 1.0])
    y = torch.tensor([0, 1, 2, 1])

    def logits(x, _):
        return constant + 0 * x.flatten(1).sum(1, keepdim=True)

    surface = Surface("s", lambda x, y: (logits(x, y),), lambda x, y: DefenseOutput(logits(x, y)), torch.nn.Identity())
    result = attack(surface, torch.rand(4, 1, 8, 8), y, Threat(norm, 0.2))
    assert result.success.tolist() == (y != 1).tolist()
    assert result.x_adv.isfinite().all()


@pytest.mark.filterwarnings("ignore:.*dlr is not defined")
@pytest.mark.parametrize("attack", PARTS, ids=lambda attack: attack.name)
@pytest.mark.parametrize("classes", [2, 3])
def test_few_classes(attack, classes):
    generator = torch.Generator().manual_seed(0)
    weights, x = torch.randn(classes, 16, generator=generator), torch.rand(6, 1, 4, 4, generator=generator)

    def logits(x, _):
        return x.flatten(1) @ weights.T

    surface = Surface("s", lambda x, y: (logits(x, y),), lambda x, y: DefenseOutput(logits(x, y)), torch.nn.Identity())
    assert attack(surface, x, logits(x, 0).argmax(1), Threat("linf", 0.9)).success.all()


@pytest.mark.parametrize("attack", PARTS, ids=lambda attack: attack.name)
def test_no_pass_goes_uncounted_or_to_an_image_that_is_done(trained, images, attack):
    seen = {"views": 0, "system": 0}

    def count(name, x):
        seen[name] += len(x)
        return trained(x)

    surface = Surface("s", lambda x, _: (count("views", x),), lambda x, _: DefenseOutput(count("system", x)), trained)
    x, y = images[0][:16], images[1][:16]
    result = attack(surface, x, y, Threat("linf", 0.1))
    probe = 1 if getattr(attack, "loss", "") == "dlr" else 0  # how many classes there are
    assert seen["views"] + seen["system"] == result.forwards.sum() + 2 * len(x) + probe  # judged first and last
    assert result.backwards.sum() <= result.forwards.sum()


@pytest.mark.parametrize("attack", PARTS, ids=lambda attack: attack.name)
def test_what_the_detector_rejects_is_no_success(trained, images, attack):
    def system(x, _):
        return DefenseOutput(trained(x), risk=(x[:, :, ::2] - x[:, :, 1::2]).abs().mean((1, 2, 3)))

    x, y = images[0][:24], images[1][:24]
    threshold = float(system(x, y).risk.quantile(0.9)) * 1.3
    surface = Surface("s", lambda x, _: (trained(x),), system, trained)
    result = attack(surface, x, y, Threat("linf", 0.1), threshold=threshold)
    free = attack(surface, x, y, Threat("linf", 0.1))
    wrong = trained(result.x_adv).argmax(1) != y
    assert torch.equal(result.success, wrong & (system(result.x_adv, y).risk <= threshold))
    assert result.success.sum() <= free.success.sum()


@pytest.mark.parametrize("attack", [APGD, FAB, Square])
def test_a_targeted_attack_ends_at_its_target(victim, trained, images, attack):
    x, y = images[0][:24], images[1][:24]
    settings = {"n_queries": 300} if attack is Square else {"steps": 20}
    result = attack(target="runner_up", **settings)(victim, x, y, Threat("linf", 0.2))
    likeliest = trained(x).scatter(1, y[:, None], float("-inf")).argmax(1)
    right = trained(x).argmax(1) == y
    moved = right & result.success
    assert moved.sum() > 10
    assert (trained(result.x_adv).argmax(1) == likeliest)[moved].all()
