"""Who decides on success (the system, in float32), who is attacked (survivors), and what is counted."""

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F

from robustforge.attacks.bim import BIM
from robustforge.attacks.core.session import AttackSession
from robustforge.attacks.core.surface import Surface, fooled, transfer
from robustforge.attacks.fgsm import FGSM
from robustforge.attacks.pgd import PGD
from robustforge.defenses.base import classify
from robustforge.losses.classification import cross_entropy_per_sample
from robustforge.nn.small_cnn import small_cnn
from robustforge.types import DefenseOutput, Threat

THREAT = Threat("linf", 0.08)


def right(y):
    return 9.0 * F.one_hot(y, 10)


def wrong(y):
    return right((y + 1) % 10)


@pytest.mark.parametrize("attack", [FGSM(), BIM(steps=4), PGD(steps=4)], ids=lambda a: a.name)
def test_a_surface_that_claims_success_does_not_stop_the_attack(trained, images, surface_of, attack):
    x, y = images
    boasting = surface_of(lambda x, y: (trained(x) + wrong(y) * 100,), lambda x, y: right(y), trained)
    result = attack(boasting, x, y, THREAT)
    assert not result.success.any()
    assert (result.backwards == getattr(attack, "steps", 1)).all()


def test_a_surface_that_denies_success_does_not_hide_it(trained, images, surface_of):
    x, y = images
    moved = lambda x_adv: (x_adv - x[: len(x_adv)]).flatten(1).abs().amax(1) > 0.01  # noqa: E731
    denying = surface_of(
        lambda x, y: (trained(x) + right(y) * 100,),
        lambda x_adv, y: torch.where(moved(x_adv)[:, None], wrong(y), right(y)), trained,
    )  # fmt: skip
    result = PGD(steps=3)(denying, x, y, THREAT)
    assert result.success.all()
    assert (result.backwards == 3).all()


def test_early_stop_returns_the_first_iterate_that_fools_the_system(victim, images):
    x, y = images
    stopped = BIM(steps=8, relative_step=0.2, precision="float32")(victim, x, y, THREAT)
    standing = ~fooled(victim, x, y)[0]
    assert torch.equal(stopped.x_adv[~standing], x[~standing])
    for steps in range(1, 9):
        run = BIM(steps=steps, step_size=0.2 * THREAT.eps, early_stop=False, precision="float32")(victim, x, y, THREAT)
        first = standing & run.success
        assert ((stopped.x_adv[first] - run.x_adv[first]).abs() < 1e-5).float().mean() > 0.998 or not first.any()
        standing &= ~run.success
    assert torch.equal(stopped.success, ~standing)
    assert 0 < standing.sum() < len(y)


def test_pass_counts_by_hand(trained, images, surface_of):
    x, y = images
    immovable = surface_of(lambda x, _: (trained(x) * 0 + right(y[:1]),), lambda x, y: right(y), trained)
    same = torch.full_like(y, int(y[0]))  # the surface nominates nobody
    for attack, forwards, backwards in (
        (FGSM(), 1, 1), (FGSM(early_stop=False), 1, 1), (BIM(steps=7), 7, 7), (BIM(steps=7, early_stop=False), 7, 7),
        (PGD(steps=7, restarts=3), 24, 21), (PGD(steps=7, restarts=3, early_stop=False), 24, 21),
    ):  # fmt: skip
        result = attack(immovable, x, same, THREAT)
        assert set(result.forwards.tolist()) == {forwards}
        assert set(result.backwards.tolist()) == {backwards}


@pytest.mark.parametrize("early_stop", [True, False])
def test_restarts_keep_what_fell_and_try_the_rest_again(surface_of, early_stop):
    # a system that falls where the noise at one pixel is in its upper tenth, and gradients that lead nowhere
    x, y = torch.full((500, 1, 4, 4), 0.5), torch.zeros(500, dtype=torch.int64)
    surface = surface_of(
        lambda x, y: (right(y) + 0 * x.sum(),),
        lambda x, y: torch.where((x[:, 0, 0, :1] > 0.5 + 0.8 * THREAT.eps), wrong(y), right(y)),
    )
    runs = [PGD(steps=2, restarts=n, early_stop=early_stop)(surface, x, y, THREAT) for n in (1, 2, 8)]
    for fewer, more in pairwise(runs):
        assert (more.success >= fewer.success).all()
        assert torch.equal(more.x_adv[fewer.success], fewer.x_adv[fewer.success])
    for run, n in zip(runs, (1, 2, 8), strict=True):
        assert run.success.float().mean() == pytest.approx(1 - 0.9**n, abs=0.06)
        assert run.backwards.max() == 2 * n
    assert (runs[2].backwards[runs[0].success] == 2).all()


def test_weights_of_two_views(trained, images, surface_of):
    x, y = images[0][:8], images[1][:8]
    torch.manual_seed(3)
    other = small_cnn((1, 28, 28), 10, (0.3,), (0.3,), (4,), 8).eval()

    def gradient(views, weights):
        surface = surface_of(views, lambda x, y: trained(x), trained, weights)
        session = AttackSession(surface, x, y, THREAT, precision="float32")
        return session.gradient(x, torch.arange(8), cross_entropy_per_sample)

    first = gradient(lambda x, _: (trained(x),), (1.0,))
    second = gradient(lambda x, _: (other(x),), (1.0,))
    both = gradient(lambda x, _: (trained(x), other(x)), (1.0, 2.5))
    torch.testing.assert_close(both[0], first[0] + 2.5 * second[0])
    torch.testing.assert_close(both[2], first[2] + 2.5 * second[2])
    torch.testing.assert_close(both[1], first[1])
    only_second = gradient(lambda x, _: (trained(x), other(x)), (0.0, 1.0))
    torch.testing.assert_close(only_second[0], second[0])
    with pytest.raises(ValueError, match="longer"):
        gradient(lambda x, _: (trained(x), other(x)), (1.0,))


def test_transfer_differentiates_the_source_and_judges_the_target(victim, trained, images):
    x, y = images
    torch.manual_seed(3)
    source = small_cnn((1, 28, 28), 10, (0.3,), (0.3,), (4,), 8).train()
    surface = transfer(source, victim)
    attack = PGD(steps=3, early_stop=False)
    result = attack(surface, x, y, THREAT)
    assert torch.equal(result.x_adv, attack(classify(source)["end_to_end"], x, y, THREAT).x_adv)
    assert torch.equal(result.success, trained(result.x_adv).argmax(1) != y)
    assert source.training
    assert result.success.sum() < attack(victim, x, y, THREAT).success.sum()


def test_rejected_is_not_fooled(trained, images):
    x, y = images
    surface = Surface(
        "s", lambda x, _: (trained(x),), lambda x, _: DefenseOutput(trained(x), x.flatten(1).mean(1)), trained
    )
    free = PGD(steps=5, precision="float32")(surface, x, y, THREAT)
    threshold = float(x.flatten(1).mean(1).median())
    strict = PGD(steps=5, precision="float32")(surface, x, y, THREAT, threshold=threshold)
    risk = strict.x_adv.flatten(1).mean(1)
    assert torch.equal(strict.success, (trained(strict.x_adv).argmax(1) != y) & (risk <= threshold))
    assert 0 < strict.success.sum() < free.success.sum()
    # at the threshold itself an input is accepted
    label = (trained(x).argmax(1) + 1) % 10
    exactly = surface.system(x[:1], y[:1]).risk.item()
    assert fooled(surface, x[:1], label[:1], exactly)[0].item()
    assert not fooled(surface, x[:1], label[:1], exactly - 1e-4)[0].item()
    # a system without a risk accepts everything
    assert fooled(classify(trained)["end_to_end"], x[:1], label[:1], -1.0)[0].item()
