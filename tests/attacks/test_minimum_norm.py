"""DDN, PDGD, PDPGD, sigma-zero, EAD and FMN in sparse norms: exact distances, strength, and what every attack owes."""

import pytest
import torch
from attack_cases import check_independence, check_properties, distance, linear, linear_case

from robustforge.attacks.core.nearest import Nearest
from robustforge.attacks.core.session import attacking
from robustforge.attacks.ddn import DDN
from robustforge.attacks.ead import EAD
from robustforge.attacks.fgsm import FGSM
from robustforge.attacks.fmn import FMN
from robustforge.attacks.pdgd import PDGD
from robustforge.attacks.pdpgd import PDPGD, proximal_l1, proximal_l2, proximal_linf
from robustforge.attacks.sigma_zero import SigmaZero
from robustforge.types import Threat, UserError

FREE = {
    "l2": Threat("l2", 28.0), "linf": Threat("linf", 1.0), "l1": Threat("l1", 784.0), "l0": Threat("l0", 784),
    "l0_pixels": Threat("l0_pixels", 784),
}  # fmt: skip
TIGHT = {"l2": Threat("l2", 0.7), "linf": Threat("linf", 0.1), "l1": Threat("l1", 5.0), "l0": Threat("l0", 7),
         "l0_pixels": Threat("l0_pixels", 5)}  # fmt: skip
EXACT = {"precision": "float32"}
PAIRS = [
    (DDN, "l2"), (PDGD, "l2"), *((PDPGD, norm) for norm in ("l1", "l2", "linf")), (EAD, "l1"),
    *((FMN, norm) for norm in ("l1", "l0", "l0_pixels")), *((SigmaZero, norm) for norm in ("l0", "l0_pixels")),
]  # fmt: skip
SMOOTH = [pair for pair in PAIRS if pair[1] in ("l1", "l2", "linf")]


def short(kind, steps, **settings):
    return kind(steps=steps, **({"search_steps": 2, "initial_c": 1.0} if kind is EAD else {}), **settings)


@pytest.mark.parametrize(("kind", "norm"), PAIRS)
def test_what_every_attack_owes(kind, norm):
    check_properties(short(kind, 3), shapes=((3, 1, 28, 28), (2, 3, 17, 23)), threats=[FREE[norm], TIGHT[norm]])


@pytest.mark.parametrize(("kind", "norm"), SMOOTH)
def test_a_linear_classifiers_distance_is_exact(kind, norm):
    surface, x, y, exact = linear_case(classes=2)
    settings = {"beta": 1e-2, "initial_c": 1.0} if kind is EAD else {}
    result = kind(steps=500, **EXACT, **settings)(surface, x, y, FREE[norm])
    assert result.success.all()
    found = distance(result.x_adv, x, norm)
    assert (found >= exact[norm] * (1 - 1e-3)).all()
    # in L1 the box may bind the steepest value
    assert (found <= exact[norm] * (1.1 if norm != "l1" else 1.35)).all()


@pytest.mark.parametrize("kind", [SigmaZero, FMN])
@pytest.mark.parametrize("norm", ["l0", "l0_pixels"])
def test_the_fewest_values_of_a_linear_classifier(kind, norm):
    # values 0 to 3 help by 1, 0.9, 0.8 and 0.7 at most half each, the others by a tenth: 1.1 takes three of them
    weight = torch.zeros(2, 12)
    weight[1] = torch.tensor([1.0, 0.9, 0.8, 0.7, *[0.1] * 8])
    surface, x = linear(weight, torch.tensor([0.0, -0.5 * float(weight[1].sum()) - 1.1])), torch.full((1, 1, 3, 4), 0.5)
    result = kind(steps=200, **EXACT)(surface, x, torch.tensor([0]), FREE[norm])
    assert result.success.all()
    assert float(distance(result.x_adv, x, norm)) == 3


def test_pixels_are_chosen_with_all_their_channels():
    # every position of one channel is worth 0.5; the two channels of position 2 together 0.9
    weight = torch.zeros(2, 2, 4)
    weight[1, 0] = torch.tensor([0.5, 0.5, 0.45, 0.5])
    weight[1, 1, 2] = 0.45
    weight = weight.flatten(1)
    surface, x = linear(weight, torch.tensor([0.0, -0.5 * float(weight[1].sum()) - 0.4])), torch.full((1, 2, 1, 4), 0.5)
    pixels = SigmaZero(steps=200, norm="l0_pixels", **EXACT)(surface, x, torch.tensor([0]), FREE["l0_pixels"])
    assert float(distance(pixels.x_adv, x, "l0_pixels")) == 1
    values = SigmaZero(steps=200, norm="l0", **EXACT)(surface, x, torch.tensor([0]), FREE["l0"])
    assert float(distance(values.x_adv, x, "l0")) == 2


@pytest.mark.parametrize("norm", ["l0", "l0_pixels"])
def test_what_is_not_needed_is_set_back(norm):
    weight = torch.zeros(2, 2, 4)
    weight[1, :, 1], weight[1, 0, 3] = 1.0, 0.2
    surface = linear(weight.flatten(1), torch.tensor([0.0, -0.5 * float(weight[1].sum()) - 0.5]))
    x = torch.full((1, 2, 1, 4), 0.5)
    found = torch.tensor(
        [[[[0.6, 1.0, 0.3, 0.9]], [[0.5, 0.9, 0.5, 0.5]]]]
    )  # of all this the second position is enough
    with attacking(surface, x, torch.tensor([0]), FREE[norm]) as session:
        for most, left in ((1, 3 if norm == "l0_pixels" else 4), (9, 1 if norm == "l0_pixels" else 2)):
            nearest = Nearest(session, norm)
            nearest.keep(found, torch.tensor([0]))
            nearest.prune(torch.tensor([0]), most)
            assert float(nearest.distance) == left
            assert session.fools(nearest.x_adv).all()
        assert torch.equal((nearest.x_adv != x).any(1)[0, 0], torch.tensor([False, True, False, False]))


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "norm"), PAIRS)
def test_stronger_with_steps_and_counted(victim, images, kind, norm):
    x, y = images[0][:32], images[1][:32]
    few, many = (short(kind, steps)(victim, x, y, FREE[norm]) for steps in (20, 200))
    assert many.success.all()
    right = many.backwards > 0
    assert (many.backwards[right] == 200 * (2 if kind is EAD else 1)).all()
    assert (many.forwards >= many.backwards).all()
    both = few.success & right
    assert distance(many.x_adv, x, norm)[both].mean() < distance(few.x_adv, x, norm)[both].mean()


@pytest.mark.parametrize(("kind", "norm"), PAIRS)
def test_targets_are_reached(victim, trained, images, kind, norm):
    x, y = images[0][:12], images[1][:12]
    result = kind(target="next", steps=120, **({"initial_c": 1.0} if kind is EAD else {}))(victim, x, y, FREE[norm])
    assert (trained(result.x_adv).argmax(1) == (y + 1) % 10).all()


@pytest.mark.parametrize(("kind", "norm"), PAIRS)
def test_batch_size_and_order_do_not_matter(victim, images, kind, norm):
    attack = short(kind, 12, **EXACT)
    tolerance = 1.5 if norm.startswith("l0") else 0.02  # one value more or less, by float ties
    check_independence(attack, victim, images[0][:7], images[1][:7], FREE[norm], tolerance=tolerance)


def test_proximal_points_are_minima():
    generator = torch.Generator().manual_seed(0)
    delta, metric = torch.randn(6, 9, generator=generator), torch.rand(6, 9, generator=generator) + 0.1
    pull = torch.tensor([0.0, 0.05, 0.3, 0.6, 1.0, 50.0])[:, None]
    orders = {proximal_l1: 1, proximal_l2: 2, proximal_linf: float("inf")}
    for proximal, order in orders.items():

        def cost(z, order=order):
            return (metric * (z - delta).square()).sum(1) / 2 + pull[:, 0] * torch.linalg.vector_norm(z, order, dim=1)

        best = proximal(delta, metric, pull)
        torch.testing.assert_close(best[0], delta[0])
        assert best[5].abs().max() < 1e-3
        for scale in (1e-3, 0.03, 0.3):
            for _ in range(50):
                assert (cost(best + scale * torch.randn(delta.shape, generator=generator)) >= cost(best) - 1e-5).all()


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (DDN, {"steps": 0}), (DDN, {"gamma": 1.0}), (DDN, {"final_gamma": 0.2}), (DDN, {"radius": 0.0}),
        (DDN, {"loss": "dlr"}), (PDGD, {"steps": 0}), (PDGD, {"step_size": 0.0}), (PDPGD, {"norm": "l0"}),
        (PDPGD, {"halvings": -1}), (SigmaZero, {"norm": "l2"}), (SigmaZero, {"sigma": 0.0}), (SigmaZero, {"steps": 0}),
        (EAD, {"search_steps": 0}), (EAD, {"beta": -1.0}), (EAD, {"initial_c": 0.0}),
    ],
)  # fmt: skip
def test_impossible_settings_are_refused(kind, settings):
    (setting,) = settings
    with pytest.raises(UserError, match=rf"({kind.__name__}\.{setting} is|Attack {kind().name} has {setting}=)"):
        kind(**settings)


@pytest.mark.parametrize(("kind", "norm"), [(DDN, "linf"), (PDGD, "l1"), (PDPGD, "l0"), (SigmaZero, "l2"), (EAD, "l2")])
def test_balls_of_other_norms_are_refused(victim, images, kind, norm):
    with pytest.raises(UserError, match=f"Attack {kind().name} searches in"):
        kind()(victim, images[0][:2], images[1][:2], FREE[norm])


def test_a_result_outside_the_ball_is_cut_to_it(victim, images):
    x, y = images[0][:16], images[1][:16]
    for kind, norm in PAIRS:
        result = short(kind, 30)(victim, x, y, TIGHT[norm])
        assert (distance(result.x_adv, x, norm) <= TIGHT[norm].eps + 1e-4).all()
    assert FGSM()(victim, x, y, TIGHT["l1"]).success.sum() <= FMN(steps=30)(victim, x, y, TIGHT["l1"]).success.sum()


@pytest.mark.parametrize("proximal", [proximal_l1, proximal_l2, proximal_linf])
def test_iterations_approach_the_proximal_point(proximal):
    generator = torch.Generator().manual_seed(0)
    delta, metric = torch.randn(3, 20, generator=generator), torch.rand(3, 20, generator=generator) + 0.2
    pull = torch.full((3, 1), 0.3)
    exact = proximal(delta, metric, pull)
    errors = [float((PDPGD(approaches=n)._near(proximal, delta, metric, pull) - exact).norm()) for n in (1, 5, 60)]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1e-3
    assert torch.equal(PDPGD(approaches=0)._near(proximal, delta, metric, pull), exact)
    usual = PDPGD()._near(proximal, delta, metric, pull)
    assert torch.equal(usual, exact) == (proximal is not proximal_l1)
