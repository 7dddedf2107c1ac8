"""Which wrong classes come first: by logits, and by MALT's linearized distances, which are exact on a linear network."""

import pytest
import torch
from attack_cases import check_independence, check_properties, linear

from robustforge.attacks.apgd import APGD
from robustforge.attacks.constraints import ConstraintDescent
from robustforge.attacks.core.rivals import likely_classes, malt_classes, ranked_classes
from robustforge.attacks.core.session import attacking
from robustforge.attacks.fab import FAB
from robustforge.attacks.multi_targeted import MultiTargeted
from robustforge.types import Threat, UserError

# at pixels of 0.5 the logits are 1, 0.9, -1 and 0: class 1 is likeliest, far, and on the other side than 2 and 3
WEIGHT = torch.tensor([[0.0, 0.0], [-0.1, -0.1], [3.0, 4.0], [4.0, 0.0]])
BIAS = torch.tensor([1.0, 1.0, -4.5, -2.0])
ATTACKS = {
    "apgd_t": lambda **kind: APGD("t", steps=1, loss="margin", precision="float32", **kind),
    "fab_t": lambda **kind: FAB("f", steps=1, precision="float32", **kind),
}


def case():
    return linear(WEIGHT, BIAS), torch.full((3, 1, 1, 2), 0.5), torch.zeros(3, dtype=torch.int64)


@pytest.mark.parametrize(
    ("norm", "expected"),
    # gaps 0.1, 2, 1; L1 of the slopes 0.2, 7, 4 -> 0.5, 0.286, 0.25; L2 0.141, 5, 4 -> 0.707, 0.4, 0.25
    [("linf", [3, 2, 1]), ("l2", [3, 2, 1])],
)
def test_scores_by_hand(norm, expected):
    surface, x, y = case()
    with attacking(surface, x, y, Threat(norm, 0.5), precision="float32") as session:
        assert likely_classes(session).tolist() == [[1, 3, 2]] * 3
        assert malt_classes(session, torch.tensor([0, 2])).tolist() == [expected] * 2
        assert malt_classes(session, torch.tensor([1]), 1).tolist() == [expected[:1]]
        assert session.backwards.tolist() == [3, 3, 3]
        assert session.forwards.tolist() == [3, 3, 3]  # the logits of everyone, then those of the rows, with gradients


def test_the_norm_decides():
    """Class 1: gap 1, slope (1, 1); class 2: gap 1, slope (1.5, 0). L1 of 2 and 1.5; L2 of 1.41 and 1.5."""
    surface = linear(torch.tensor([[0.0, 0.0], [1.0, 1.0], [1.5, 0.0]]), torch.tensor([1.0, 0.0, 0.0]))
    for norm, first in (("linf", 1), ("l2", 2)):
        with attacking(surface, torch.zeros(1, 1, 1, 2), torch.zeros(1).long(), Threat(norm, 1.0)) as session:
            assert malt_classes(session, torch.tensor([0]), 1).item() == first


def test_many_classes_go_in_several_passes_and_without_a_gradient_the_likeliest_come_first():
    generator = torch.Generator().manual_seed(0)
    bias = torch.randn(40, generator=generator)
    y = bias.argmax().expand(2)
    x = torch.full((2, 1, 2, 2), 0.5)
    flat = linear(torch.zeros(40, 4), bias)
    with attacking(flat, x, y, Threat("linf", 0.1), precision="float32") as session:
        assert torch.equal(malt_classes(session, session.everyone()), likely_classes(session))
    weight = torch.randn(40, 4, generator=generator)
    logits = x.flatten(1) @ weight.T + bias
    y = logits.argmax(1)
    with attacking(linear(weight, bias), x, y, Threat("linf", 0.1), precision="float32") as session:
        found = malt_classes(session, session.everyone())
        assert session.forwards.tolist() == [1 + 3, 1 + 3]
        assert session.backwards.tolist() == [39, 39]
    distance = (logits[0, y[0]] - logits[0]) / (weight - weight[y[0]]).abs().sum(1)
    distance[y[0]] = float("inf")
    assert torch.equal(found[0], distance.argsort()[:-1])


def test_only_survivors_pay_and_a_target_of_ones_own_is_kept():
    surface, x, y = case()
    wrong = torch.tensor([0, 1, 0])
    with attacking(surface, x, wrong, Threat("linf", 0.5), precision="float32") as session:
        classes, rows = ranked_classes(session, "malt", 2)
        assert rows.tolist() == [0, 2]
        assert classes[rows].tolist() == [[3, 2]] * 2
        assert session.backwards.tolist() == [3, 0, 3]
        assert ranked_classes(session, "logits", 2)[1] is None
    with attacking(surface, x, y, Threat("linf", 0.5), target=1) as session:
        assert ranked_classes(session, "malt", 2)[0].tolist() == [[1]] * 3


@pytest.mark.parametrize("make", ATTACKS.values(), ids=ATTACKS)
def test_one_target_by_malt_breaks_what_one_by_logits_does_not(make):
    surface, x, y = case()
    threat = Threat("linf", 0.26)  # class 3 is 0.25 away, class 1 0.5
    assert make(n_target_classes=1, order="malt")(surface, x, y, threat).success.all()
    assert not make(n_target_classes=1)(surface, x, y, threat).success.any()


@pytest.mark.parametrize("make", [MultiTargeted, ConstraintDescent])
def test_attacks_that_try_one_class_after_another_begin_with_it(make):
    surface, x, y = case()
    by_malt = make(steps=8, order="malt", precision="float32")(surface, x, y, Threat("linf", 0.3))
    by_logits = make(steps=8, precision="float32")(surface, x, y, Threat("linf", 0.3))
    assert by_malt.success.all()
    assert by_malt.backwards.sum() < by_logits.backwards.sum(), "three gradients for the order included"


def test_what_every_attack_owes(victim, images):
    malt = APGD("t", steps=5, loss="margin", n_target_classes=3, order="malt", precision="float32")
    check_properties(malt, shapes=((3, 1, 28, 28), (2, 3, 17, 23)))
    check_independence(malt, victim, images[0][:13], images[1][:13], Threat("linf", 0.09), pixels=0.97, sizes=(4,))


@pytest.mark.parametrize("kind", [APGD, FAB, MultiTargeted, ConstraintDescent])
def test_an_unknown_order_is_refused(kind):
    with pytest.raises(UserError, match=r"order is 'nearest': give logits or malt"):
        kind(order="nearest")
