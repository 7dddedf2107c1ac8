"""Targets, expectation over transformation, BPDA, compiled surfaces: what surfaces and queries make of an attack."""

import pytest
import torch
from torch import nn

from robustforge.attacks.bim import BIM
from robustforge.attacks.core.surface import Surface, bpda, compiled, eot
from robustforge.attacks.core.targets import choose_targets
from robustforge.attacks.deepfool import DeepFool
from robustforge.attacks.fgsm import FGSM
from robustforge.attacks.jsma import JSMA
from robustforge.attacks.pgd import PGD
from robustforge.defenses.base import classify
from robustforge.types import DefenseOutput, Threat, UserError


def noisy(network, scale=0.3):
    """A randomized defense: Gaussian noise on the input, drawn from the global generator."""

    def system(x, _=None):
        return DefenseOutput(network(x + scale * torch.randn_like(x)))

    return Surface("end_to_end", lambda x, _: (system(x).logits,), system, network)


def test_eot_averages_the_gradient_and_counts_its_draws(trained, images):
    x, y = images[0][:16], images[1][:16]
    one = BIM(steps=4, early_stop=False)(noisy(trained), x, y, Threat("linf", 0.1))
    many = BIM(steps=4, early_stop=False)(eot(noisy(trained), 8), x, y, Threat("linf", 0.1))
    assert one.backwards.eq(4).all()
    assert many.backwards.eq(32).all()
    # a linear model with one noisy input: the averaged gradient's spread falls with the root of the draws
    weights = torch.randn(10, 4)

    def gradients(draws):
        surface = Surface(
            "s", lambda x, _: ((x.flatten(1) + torch.randn(len(x), 4)) ** 2 @ weights.t(),),
            lambda x, _: DefenseOutput(x.flatten(1) @ weights.t()), nn.Identity(), draws=draws,
        )  # fmt: skip
        leaf = torch.full((2000, 1, 2, 2), 0.5, requires_grad=True)
        logits, value = surface.evaluate(leaf, torch.zeros(2000, dtype=torch.int64), lambda z, y: z[:, 0])
        assert logits.shape == (2000, 10)
        assert value.shape == (2000,)
        return torch.autograd.grad(value.sum(), leaf)[0].std(0).mean()

    assert gradients(16) / gradients(1) == pytest.approx(0.25, abs=0.03)
    with pytest.raises(UserError):
        eot(noisy(trained), 0)


def test_random_defenses_draw_the_same_numbers_and_leave_the_callers_alone(trained, images):
    x, y = images[0][:16], images[1][:16]
    torch.manual_seed(0)
    first = PGD(steps=3)(noisy(trained), x, y, Threat("linf", 0.1))
    follows = torch.rand(1)
    torch.manual_seed(0)
    assert torch.equal(torch.rand(1), follows)
    second = PGD(steps=3)(noisy(trained), x, y, Threat("linf", 0.1))
    assert torch.equal(first.x_adv, second.x_adv)


def test_bpda_passes_a_rounding_layer(trained, images):
    x, y = images

    def rounded(x):
        return (x * 4).round() / 4

    surface = classify(nn.Sequential(Rounding(), trained))["end_to_end"]
    threat = Threat("linf", 0.2)
    blind = PGD(steps=10)(surface, x, y, threat)
    through = PGD(steps=10)(bpda(rounded, trained, surface), x, y, threat)
    assert through.success.float().mean() > 0.9
    assert through.success.sum() > blind.success.sum()
    assert blind.trace.zero_gradient[~blind.trace.zero_gradient.isnan()].eq(1).all()


class Rounding(nn.Module):
    def forward(self, x):
        return (x * 4).round() / 4


@pytest.mark.parametrize("target", ["next", "random", "least_likely", "runner_up", 3])
def test_targets_are_wrong_classes_and_are_reached(victim, trained, images, target):
    x, y = images
    targets = choose_targets(target, trained(x).detach(), y, torch.arange(len(y)))
    assert (targets != y).all()
    result = PGD(steps=40, target=target, loss="margin")(victim, x, y, Threat("linf", 0.35))
    assert (trained(result.x_adv).argmax(1) == targets).float().mean() > 0.85
    assert torch.equal(result.success, trained(result.x_adv).argmax(1) != y)


def test_targets_by_hand():
    logits, y, index = torch.tensor([[0.0, 2.0, 1.0], [3.0, 1.0, 2.0]]), torch.tensor([1, 0]), torch.arange(2)
    assert choose_targets("next", logits, y, index).tolist() == [2, 1]
    assert choose_targets("least_likely", logits, y, index).tolist() == [0, 1]
    assert choose_targets("runner_up", logits, y, index).tolist() == [2, 2]
    assert choose_targets(1, logits, y, index).tolist() == [2, 1]
    draws = choose_targets("random", torch.zeros(3000, 3), torch.zeros(3000, dtype=torch.int64), torch.arange(3000))
    assert set(draws.tolist()) == {1, 2}
    assert (draws == 1).float().mean() == pytest.approx(0.5, abs=0.04)
    for bad, classes in (("nearest", 3), (3, 3), ("next", 1)):
        with pytest.raises(UserError):
            choose_targets(bad, torch.zeros(2, classes), y * 0, index)
    with pytest.raises(UserError):
        PGD(target="nearest")


def test_the_predicted_label_leaks_nothing_where_the_model_errs(victim, trained, images):
    x, y = images
    predicted = trained(x).argmax(1)
    threat = Threat("linf", 0.1)
    blind = FGSM(label="predicted", early_stop=False)(victim, x, y, threat)
    assert torch.equal(blind.x_adv, FGSM(early_stop=False)(victim, x, predicted, threat).x_adv)
    wrong = predicted != y
    assert wrong.any()
    leaked = FGSM(early_stop=False)(victim, x, y, threat)
    assert not torch.equal(blind.x_adv[wrong], leaked.x_adv[wrong])
    assert torch.equal(blind.x_adv[~wrong], leaked.x_adv[~wrong])


def test_a_random_share_of_all_but_nothing_is_fgsm_and_half_differs(victim, images):
    x, y = images
    threat = Threat("linf", 0.1)
    plain = FGSM(early_stop=False)(victim, x, y, threat).x_adv
    nearly = FGSM(random_share=1e-6, early_stop=False)(victim, x, y, threat).x_adv
    assert ((plain - nearly).abs() < 1e-4).float().mean() > 0.98
    half = FGSM(random_share=0.5, early_stop=False)(victim, x, y, threat).x_adv
    interior = (x > 0.1) & (x < 0.9)
    steps = ((half - x).abs()[interior] / 0.05).round()
    assert set(steps.tolist()) <= {0.0, 1.0, 2.0}  # the two halves cancel, or add up
    for share in (1.0, -0.1):
        with pytest.raises(UserError):
            FGSM(random_share=share)


def test_momentum_by_hand():
    """Two steps on a linear-quadratic score: the second direction is the sum of both normalized gradients."""
    x, y = torch.tensor([[[[0.5, 0.5]]]]), torch.tensor([0])

    def logits(x):
        a, b = x[:, 0, 0, 0], x[:, 0, 0, 1]
        return torch.stack([a * 0, 4 * a - 20 * (a - 0.5) ** 2 + b], 1)  # gradient (4 - 40 (a - .5), 1)

    surface = Surface("s", lambda x, _: (logits(x),), lambda x, _: DefenseOutput(logits(x)), nn.Identity())
    settings = {"steps": 2, "step_size": 0.15, "loss": "margin", "early_stop": False}
    threat = Threat("linf", 0.3)
    plain = BIM(**settings)(surface, x, y, threat).x_adv.flatten()
    # at a = .65 the gradient is (-2, 1): alone it turns back; with (4/5, 1/5) + (-2/3, 1/3) it goes on
    torch.testing.assert_close(plain, torch.tensor([0.5, 0.8]))
    torch.testing.assert_close(
        BIM(momentum=1.0, **settings)(surface, x, y, threat).x_adv.flatten(), torch.tensor([0.8, 0.8])
    )
    with pytest.raises(UserError):
        BIM(momentum=-1.0)


def test_a_compiled_surface_gives_the_same_answers(victim, images):
    x, y = images
    attack, threat = PGD(steps=3, precision="float32"), Threat("linf", 0.08)
    fast = attack(compiled(victim, backend="eager"), x, y, threat)
    assert ((fast.x_adv - attack(victim, x, y, threat).x_adv).abs() < 1e-5).float().mean() > 0.998


def test_what_is_not_finite_is_refused(surface_of):
    x, y = torch.rand(3, 1, 4, 4), torch.zeros(3, dtype=torch.int64)
    surface = surface_of(
        lambda x, _: (x.flatten(1)[:, :3] / 0,), lambda x, _: x.flatten(1)[:, :3] * torch.tensor([9.0, 1, 1])
    )
    with pytest.raises(UserError, match="not finite"):
        PGD(steps=2, early_stop=False)(surface, x, y, Threat("linf", 0.1))


def test_traces_tell_a_dead_gradient_from_a_living_one(victim, images):
    x, y = images
    trace = PGD(steps=10, early_stop=False)(victim, x, y, Threat("linf", 0.1)).trace
    assert (trace.zero_gradient < 0.5).all()
    assert (trace.loss_gain > 0).float().mean() > 0.9
    assert ((trace.best_at >= 0) & (trace.best_at <= 1)).all()
    stopped = PGD(steps=10)(victim, x, y, Threat("linf", 0.1))
    wrong = victim.system(x, y).logits.argmax(1) != y
    assert torch.equal(stopped.trace.zero_gradient.isnan(), wrong)  # no gradient was taken of those


def test_minimum_norm_and_saliency_attacks_leave_traces_too(victim, images):
    x, y = images[0][:16], images[1][:16]
    for attack in (DeepFool(steps=5), JSMA(gamma=0.05), JSMA(gamma=0.05, aim="best")):
        trace = attack(victim, x, y, Threat("l2", 5.0)).trace
        seen = ~trace.zero_gradient.isnan()
        assert seen.any()
        assert (trace.zero_gradient[seen] < 1).all()
        assert (trace.loss_gain[seen] >= 0).all()
        assert trace.loss_gain[seen].max() > 0
