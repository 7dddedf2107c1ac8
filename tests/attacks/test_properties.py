"""What gradient and score attacks owe: budgets, judging, counted passes, and answers that depend on their arguments."""

import pytest
import torch
from attack_cases import AUTO, EXACT, GRADIENT, check_independence, check_result, random_case
from hypothesis import given, settings
from hypothesis import strategies as st

from robustforge.attacks.apgd import APGD
from robustforge.attacks.bim import BIM
from robustforge.attacks.core.surface import Surface
from robustforge.attacks.ensemble import WorstCase
from robustforge.attacks.fab import FAB
from robustforge.attacks.fgsm import FGSM
from robustforge.attacks.pgd import PGD
from robustforge.attacks.square import Square
from robustforge.types import DefenseOutput, Threat

SHAPES = [(5, 1, 28, 28), (4, 3, 32, 32), (1, 1, 28, 28), (3, 3, 17, 23)]
ATTACKS = [
    *GRADIENT, *AUTO[:6], WorstCase("worst", {"a": AUTO[0], "b": AUTO[3], "c": AUTO[5]}),
    APGD("apgd bf16", steps=4, precision="bf16"),
]  # fmt: skip


def name_of(value):
    return getattr(value, "name", str(value))


def stops_early(attack):
    return getattr(attack, "early_stop", True)


@settings(max_examples=80, deadline=None)
@given(
    attack=st.sampled_from(ATTACKS), shape=st.sampled_from(SHAPES), norm=st.sampled_from(["linf", "l2"]),
    share=st.floats(0, 1), seed=st.integers(0, 1000),
)  # fmt: skip
def test_results_respect_the_budget_and_are_judged_as_returned(attack, shape, norm, share, seed):
    surface, x, y = random_case(shape, seed=seed)
    threat, before = Threat(norm, share if norm == "linf" else 8 * share), x.clone()
    result = attack(surface, x, y, threat, seed=seed)
    assert torch.equal(x, before)
    check_result(result, surface, x, y, threat)
    if threat.eps == 0:
        assert torch.equal(result.x_adv, x)


@pytest.mark.parametrize("attack", ATTACKS, ids=name_of)
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_no_budget_is_the_identity_and_what_is_wrong_already_costs_nothing(attack, norm):
    surface, x, y = random_case((5, 1, 28, 28))
    result = attack(surface, x, y, Threat(norm, 0.0))
    assert torch.equal(result.x_adv, x)
    assert not result.success.any()
    assert result.backwards.sum() == 0
    if stops_early(attack):
        y = (y + torch.tensor([1, 0, 0, 0, 0])) % 10
        result = attack(surface, x, y, Threat(norm, 0.1))
        assert result.success[0]
        assert torch.equal(result.x_adv[0], x[0])
        assert result.backwards[0] == 0
        assert result.forwards[0] <= 1  # choosing target classes looks at every image


@pytest.mark.parametrize("attack", [FGSM(**EXACT), PGD(steps=5, restarts=2, **EXACT)], ids=name_of)
@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.08), ("l2", 1.0)])
def test_batch_size_and_order_do_not_matter(victim, images, attack, norm, eps):
    x, y = images[0][:29], images[1][:29]
    check_independence(attack, victim, x, y, Threat(norm, eps), pixels=0.998, sizes=(1, 7))


@pytest.mark.parametrize("attack", AUTO[:6], ids=name_of)
@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.09), ("l2", 1.5)])
def test_nor_do_they_where_runs_stand_side_by_side(victim, images, attack, norm, eps):
    x, y = images[0][:13], images[1][:13]
    whole = check_independence(attack, victim, x, y, Threat(norm, eps), pixels=0.97, sizes=(4,))
    assert whole.success.any()
    assert not whole.success.all()


@pytest.mark.parametrize("attack", ATTACKS, ids=name_of)
def test_repeated_bit_for_bit_whatever_the_global_generator_says(victim, images, attack):
    x, y = images[0][:16], images[1][:16]
    torch.manual_seed(0)
    first = attack(victim, x, y, Threat("linf", 0.1), seed=5)
    torch.manual_seed(1)
    second = attack(victim, x, y, Threat("linf", 0.1), seed=5)
    for name in ("x_adv", "success", "forwards", "backwards"):
        assert torch.equal(getattr(first, name), getattr(second, name))


@pytest.mark.filterwarnings("ignore:.*dlr is not defined")
@pytest.mark.parametrize("attack", AUTO, ids=name_of)
@pytest.mark.parametrize("classes", [2, 3])
def test_few_classes(attack, classes):
    generator = torch.Generator().manual_seed(0)
    weights, x = torch.randn(classes, 16, generator=generator), torch.rand(6, 1, 4, 4, generator=generator)

    def logits(x, _):
        return x.flatten(1) @ weights.T

    surface = Surface("s", lambda x, y: (logits(x, y),), lambda x, y: DefenseOutput(logits(x, y)), torch.nn.Identity())
    assert attack(surface, x, logits(x, 0).argmax(1), Threat("linf", 0.9)).success.all()


@pytest.mark.parametrize(
    "attack",
    [FGSM(), BIM(steps=5), PGD(steps=4, restarts=3), PGD("pgd last", steps=4, restarts=2, early_stop=False), *AUTO],
    ids=name_of,
)
def test_every_pass_is_counted_and_only_survivors_pay(trained, images, attack):
    seen = {"views": 0, "system": 0}

    def count(name, x):
        seen[name] += len(x)
        return trained(x)

    surface = Surface("s", lambda x, _: (count("views", x),), lambda x, _: DefenseOutput(count("system", x)), trained)
    x, y = images[0][:32], images[1][:32].clone()
    y[:5] = (trained(x[:5]).argmax(1) + 1) % 10  # misclassified already
    result = attack(surface, x, y, Threat("linf", 0.08))
    probe = 1 if getattr(attack, "loss", "") == "dlr" else 0  # how many classes there are
    # the first judgment, of what was handed in, and the last, of what is returned, are nobody's pass
    free = len(y) * (2 if stops_early(attack) else 1)
    assert seen["views"] + seen["system"] == result.forwards.sum() + free + probe
    assert result.backwards.sum() <= result.forwards.sum()
    if stops_early(attack):
        assert result.backwards[:5].sum() == 0
        assert result.forwards[:5].max() <= 1  # choosing target classes looks at every image
        assert torch.equal(result.x_adv[:5], x[:5])
    if attack not in AUTO:
        survivors, steps = ~result.success, getattr(attack, "steps", 1) * getattr(attack, "restarts", 1)
        assert seen["views"] == result.backwards.sum()
        assert survivors.any()
        assert result.backwards.max() <= steps
        assert (result.backwards[survivors] == steps).all()
        assert result.forwards[:5].sum() == 0 or not stops_early(attack)


@pytest.mark.parametrize("attack", [PGD(steps=5, **EXACT), *AUTO], ids=name_of)
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
