"""Networks that write into their input or cannot answer no images, one-pixel images, and classes that do not exist."""

import pytest
import torch
from torch import nn

from robustforge.attacks.carlini_wagner import CarliniWagner
from robustforge.attacks.core.batching import batch_within
from robustforge.attacks.core.surface import eot, fooled
from robustforge.attacks.deepfool import DeepFool
from robustforge.attacks.ensemble import Sampled, WorstCase
from robustforge.attacks.fab import FAB
from robustforge.attacks.fgsm import FGSM
from robustforge.attacks.fmn import FMN
from robustforge.attacks.hop_skip_jump import HopSkipJump
from robustforge.attacks.jsma import JSMA
from robustforge.attacks.mixture import Mixture
from robustforge.attacks.noise import Noise
from robustforge.attacks.none import NoAttack
from robustforge.attacks.pgd import PGD
from robustforge.attacks.square import Square
from robustforge.attacks.torchattacks import TorchAttack
from robustforge.defenses.base import classify
from robustforge.types import Threat, UserError

ATTACKS = [
    NoAttack(), Noise(), FGSM(), PGD(steps=3), DeepFool(steps=3), CarliniWagner(steps=5, search_steps=1), FMN(steps=5),
    FAB(steps=3), JSMA(gamma=0.02), Square(n_queries=20), HopSkipJump(steps=1, init_tries=5),
    TorchAttack("PGD", {"steps": 3}), TorchAttack("APGD", {"steps": 3}), TorchAttack("Square", {"n_queries": 20}),
]  # fmt: skip


class Begins(nn.Module):
    """Normalizes or cuts its input first: in place, as some networks do, or not."""

    def __init__(self, network, way, in_place=True):
        super().__init__()
        self.network, self.way, self.in_place = network, way, in_place

    def forward(self, x):
        x = x if self.in_place else x.clone()
        return self.network(torch.relu_(x) if self.way == "relu" else x.sub_(0.1).mul_(0.7))


@pytest.mark.filterwarnings("ignore:torchattacks")
@pytest.mark.parametrize("way", ["normalizes", "relu"])
@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_a_network_that_writes_into_its_input(trained, images, attack, way):
    x, y = images[0][:12], images[1][:12]
    given = x.clone()
    threat = Threat("linf", 0.15)
    result = attack(classify(Begins(trained, way))["end_to_end"], given, y, threat)
    assert torch.equal(given, x)
    copies = Begins(trained, way, in_place=False)
    expected = attack(classify(copies)["end_to_end"], x, y, threat)
    assert torch.equal(result.x_adv, expected.x_adv)
    assert torch.equal(result.success, copies(result.x_adv).argmax(1) != y)


class Flattens(nn.Module):
    """A linear classifier that flattens its input as many networks do, which is an error where there are no images."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(64, 10)

    def forward(self, x):
        return self.layer(x.view(len(x), -1))


@pytest.mark.filterwarnings("ignore:torchattacks")
@pytest.mark.parametrize(
    "attack",
    [
        *ATTACKS, WorstCase("worst", {"fgsm": FGSM(), "pgd": PGD(steps=3)}),
        Sampled("sampled", {"pgd": PGD(steps=3), "square": Square(n_queries=20)}, sampled=["square"], sample=0.0),
        Mixture({"pgd": PGD(steps=3)}, {"pgd": Threat("linf", 0.1)}),
    ],
    ids=lambda attack: attack.name,
)  # fmt: skip
def test_a_network_that_cannot_answer_no_images(attack):
    network = Flattens()
    with pytest.raises(RuntimeError, match="0 elements"):
        network(torch.zeros(0, 1, 8, 8))
    x = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    right, wrong = network(x).argmax(1), network(x).argmin(1)
    lost = torch.tensor([True, False, True, False])
    threat = Threat("linf", 0.05)
    assert attack(network, x[:0], right[:0], threat).success.shape == (0,)
    assert attack(network, x, wrong, threat).success.all()
    assert attack(network, x, torch.where(lost, wrong, right), threat).success[lost].all()


def test_nothing_returned_is_the_callers_own(victim, images):
    x, y = images[0][:4].clone(), images[1][:4]
    for threat in (Threat("linf", 0.0), Threat("linf", 0.1)):
        NoAttack()(victim, x, y, threat).x_adv.fill_(0.5)
    assert torch.equal(x, images[0][:4])


def test_judging_and_measuring_leave_images_alone(trained, images):
    x, y = images[0][:4].clone(), images[1][:4]
    surface = classify(Begins(trained, "normalizes"))["end_to_end"]
    fooled(surface, x, y)
    assert batch_within(surface, x[:2], y[:2], 1e9, 64) == 64
    PGD(steps=2)(eot(surface, 3), x, y, Threat("linf", 0.1))
    assert torch.equal(x, images[0][:4])


def test_jsma_on_one_pixel_is_refused_in_one_sentence():
    network = nn.Sequential(nn.Flatten(), nn.Linear(1, 2))
    x = torch.rand(3, 1, 1, 1)
    with pytest.raises(UserError, match="two pixels at a time"):
        JSMA()(classify(network)["end_to_end"], x, network(x).argmax(1), Threat("linf", 0.5))
    for attack in (JSMA(), WorstCase("both", {"pgd": PGD(), "jsma": JSMA()}),
                   Mixture({"jsma": JSMA()}, {"jsma": Threat()})):  # fmt: skip
        with pytest.raises(UserError, match="two pixels at a time"):
            attack.fits((1, 1, 1), 2, Threat())
        attack.fits((1, 1, 2), 2, Threat())


def test_a_target_that_is_no_class_is_refused():
    for attack in (PGD(target=10), WorstCase("both", {"first": FGSM(), "second": PGD(target=10)})):
        with pytest.raises(UserError, match="a class between 0 and 9"):
            attack.fits((1, 8, 8), 10, Threat())
        attack.fits((1, 8, 8), 11, Threat())


def test_a_mixture_asks_with_each_attacks_own_budget():
    attacks, budgets = {"one": TorchAttack("PGDL2")}, {"one": Threat("l2", 1.0)}
    Mixture(attacks, budgets).fits((1, 8, 8), 10, Threat("linf", 0.1))
    with pytest.raises(UserError, match="searches in L2"):
        Mixture(attacks, {"one": Threat("linf", 0.1)}).fits((1, 8, 8), 10, Threat("l2", 1.0))
